"""Train and judge what a table or figure of the paper compares, and keep the scores for its notebook in nbs/experiments/.

    python benchmarks/tables.py 4a --data report --steps 600                         small runs; each notebook prints the command of those that it shows
    python benchmarks/tables.py 4a --data MVTEC --preset paper --steps 0             as the paper: b4, 1,000 epochs (a GPU and hours)
    python benchmarks/tables.py 2 --data MVTEC VISA BTAD --preset paper --steps 0    several data sets, one model for all and one for each
    python benchmarks/tables.py 1 --data demo --steps 400 --seeds 0                  what everybody has: hazelnuts and solar cells

`--data` takes folders as `get_samples` reads them (their runs go by the folder's name), or one of `demo`, `tiles` (with a part of the magnetic tiles in
ONENIP_SHARED/data), `hazelnut`, and `report` (all products of ONENIP_SHARED/data; nothing was chosen on cubes, pcb_pairs and tire). A run is a line of
`runs.jsonl` in the folder `--out` (nbs/experiments/scores), with a table of its images (.csv) and, where there are masks, histograms
of their pixels (.npz) beside it, from which intervals and metrics can be had without images and model. What is there is not run again, and with another
recipe or length only into another folder: the notebooks take the runs in nbs/experiments/scores by their names.
"""
import argparse, json, re, time
from dataclasses import asdict
from pathlib import Path

import numpy as np
import torch
from fastai.callback.core import Callback

from onenip.all import *
from onenip.data import _shared
from onenip.evaluation import _truth
from onenip.metrics import _pixel_histograms
from search import some, values

OUT = Path(__file__).resolve().parent.parent/'nbs/experiments/scores'
FULL, UNIAD, NEAREST = '4a dynamic+restoration+refiner', '4a none', 'neighbour'
EPOCH, BINS = 25, 128 # steps between two points of a curve, and bins of the pixels' scores
RUNS = {**ablations, 'size 256': dict(size=256), 'size 320': dict(size=320), NEAREST: None} # name → changes to the recipe
ROWS = { # table or figure → its runs
    '1': [FULL, UNIAD, NEAREST], '1b': [FULL, UNIAD, NEAREST], '2': [FULL, UNIAD], '3': [FULL, 'size 256', 'size 320'], 'maps': [FULL, UNIAD],
    **{t: [k for k in ablations if k.startswith(t)] for t in ('4a', '4b')}, '4c': [FULL], 'pool': [FULL], '4d': ['4d random', '4d fixed'], 'prompts': ['4d random', '4d fixed']}


def tiles():
    "Part of the magnetic tiles: 160 normal images to train on, 40 normal and 60 defective ones to test on"
    own = [s for s in get_samples(_shared('data'), quiet=True) if s.product == 'magnetic_tile']
    test = lambda label, n: some(L(s for s in own if s.split == 'test' and s.label == label), n)
    return some(normals(own), 160) + test(0, 40) + test(1, 60)


def data_sets(data):
    "Name → samples of each data set in `data`, and one name for all"
    if len({Path(d).name for d in data}) < len(data): raise SystemExit(f'--data {" ".join(data)}: two folders of the same name, runs go by it; rename one')
    known = dict(hazelnut=lambda: dict(hazelnut=hazelnut()), demo=lambda: dict(hazelnut=hazelnut(), elpv=elpv()),
                 tiles=lambda: dict(hazelnut=hazelnut(), elpv=elpv(), magnetic_tile=tiles()),
                 report=lambda: by_product(get_samples(_shared('data'), quiet=True)))
    if len(data) == 1 and data[0] in known: return data[0], known[data[0]]()
    return '+'.join(Path(d).name for d in data), {Path(d).name: get_samples(d) for d in data}


def few(samples, n):
    "All normal training images, and at most `n` test images of each product and label"
    groups = {}
    for s in samples:
        if s.split == 'test': groups.setdefault((s.product, s.label), L()).append(s)
    return normals(samples) + L(some(g, n) for g in groups.values()).concat()


class Curve(Callback):
    "Metrics on `samples` at about twenty of `epochs`, in `points`; they and the `seconds` of training are kept in `folder`, where a run that was stopped goes on"
    def __init__(self, samples, epochs, folder=None):
        self.samples, self.every, self.folder = samples, max(1, epochs//20), folder and Path(folder)
        self.file = folder and self.folder/'curve.json'
        self.points, self.before = json.loads(self.file.read_text()).values() if folder and self.file.exists() else ([], 0)
        self.start, self.spent = None, 0

    def before_fit(self): self.start = time.time()

    @property
    def seconds(self): return round(self.before+(time.time()-self.start-self.spent if self.start else 0))                # 0: nothing was left to train

    def after_epoch(self):
        start, step = time.time(), len(self.learn.parts)
        if step//len(self.learn.dls.train)%self.every: return
        mean = self.learn.detector().evaluate(self.samples).to_frame().loc['mean']
        self.points = [p for p in self.points if p['step'] < step]+[dict(step=step, **mean.round(5))]
        self.spent += time.time()-start
        if self.file: self.file.write_text(json.dumps(dict(points=self.points, seconds=self.seconds)))


def histograms(table):
    "Of every product with masks: pixels of each image by score, and which images these are"
    out, size = {}, table.settings['size']
    for product, places in table.scores.groupby('product').groups.items():
        masks = {i: m for i in places if (m := _truth(table.samples[i], size)) is not None}
        if not any(m.any() for m in masks.values()): continue
        bad, good, region = _pixel_histograms(table.maps(list(masks))['anomaly_map'], np.stack(list(masks.values())), BINS)
        out |= {f'{product}/places': np.array(list(masks)), f'{product}/bad': bad.astype(np.uint32), f'{product}/good': good.astype(np.uint32),
                f'{product}/region': region.astype(np.float32)}
    return out


def plain(x): return None if isinstance(x, float) and np.isnan(x) else x

def slug(*parts): return re.sub(r'[^\w+.,-]+', '_', '_'.join(map(str, parts)))               # a name for a file


class Store:
    "Runs that were done, in a folder; `tag` ends the names of files of another recipe than `quick`"
    def __init__(self, folder, tag=''):
        self.folder, self.log, self.tag = Path(folder), Path(folder)/'runs.jsonl', tag
        self.folder.mkdir(parents=True, exist_ok=True)

    def lines(self):
        found = [json.loads(o) for o in self.log.read_text(encoding='utf-8').splitlines()] if self.log.exists() else []
        return [{**r, 'recipe': {**asdict(Preset()), **r['recipe']}} if r.get('recipe') else r for r in found]             # fields that are younger than a run had their defaults

    def find(self, **what):
        "The first run that has `what`; `any`: something"
        return next((r for r in self.lines() if all(bool(r.get(k)) if v is any else r.get(k) == v for k, v in what.items())), None)

    def check(self, on, name, seed, recipe, backbone):
        "Raise if notebooks show another run under this name: by another recipe, of another length, or on another backbone"
        other = self.folder.resolve() == OUT and self.find(on=on, name=name, seed=seed)
        if other and (other['recipe'] != recipe or other.get('backbone', backbone) != backbone):
            raise SystemExit(f'{self.log} has {name} on {on}, seed {seed}, by another recipe or of another length, and notebooks show it: give --out another folder')

    def name(self, on, name, steps, seed): return slug(on, name, steps, seed)+self.tag

    def line(self, **what):
        with self.log.open('a', encoding='utf-8') as f: f.write(json.dumps(what)+'\n')

    def add(self, table, pixels=True, **what):
        "Keep the scores of `table`, and its `pixels`"
        name = self.name(*(what[k] for k in ('on', 'name', 'steps', 'seed')))
        scores = table.scores.assign(image=['/'.join(Path(f).parts[-2:]) for f in table.scores.image], image_score=table.scores.image_score.map('{:.5g}'.format),
                                     similarity=table.scores.similarity.map('{:.4f}'.format))
        scores.drop(columns=['mask', 'truth', 'prompt_image'], errors='ignore').to_csv(self.folder/f'{name}.csv', index=False)
        if pixels and (found := histograms(table)): np.savez_compressed(self.folder/f'{name}.npz', **found)
        metrics = {p: {k: plain(round(v, 5)) for k, v in row.items()} for p, row in table.rows.items()}
        self.line(**what, scores=name, protocol=table.settings['protocol']['name'], size=table.settings['size'], metrics=metrics,
                  right=float((table.scores['prompt'] == table.scores['product']).mean()) if (table.scores['prompt'] != '').any() else None)


def tag_of(args):
    "The recipe in a file's name, if it is not `quick` as it is"
    said = [*([args.preset] if args.preset != 'quick' else []), *(f'{k}={v}' for k, v in args.changes.items())]
    return '-'+slug(*said) if said else ''


def length(steps):
    "Changes to a recipe that make it so many `steps` long; 0: none"
    return dict(epochs=-(-steps//EPOCH), epoch_steps=min(EPOCH, steps)) if steps else {}


def recipe(args, name):
    "The preset of the run `name`"
    return get_preset(args.preset, **{**length(args.steps), **args.changes, **RUNS[name]})


def told_of(preset, detector, seconds):
    "What a training took"
    steps = preset.epochs*(preset.epoch_steps or -(-sum(detector.info['learned_from'].values())//preset.bs))
    return dict(steps=steps, recipe=asdict(preset), images_seen=steps*preset.bs, seconds=seconds, threads=torch.get_num_threads(), bfloat16=detector.model.mixed)


def folder_of(args, on, name, seed):
    "Where `--save` keeps the detector of a run"
    return args.save and Path(args.save)/(slug(on, name, args.steps, seed)+tag_of(args))


def trained(args, on, name, samples, seed, cbs=None):
    "A detector, and what training took; from the folder `--save` if it is there"
    folder, start = folder_of(args, on, name, seed), time.time()
    if folder and (folder/'told.json').exists(): return Detector.load(folder), json.loads((folder/'told.json').read_text())
    if RUNS[name] is None:
        detector = NearestNeighbour.fit(samples, Backbone(get_preset(args.preset).backbone), seed=seed)
        told = dict(steps=0, recipe=None, images_seen=sum(detector.info['learned_from'].values()), seconds=round(time.time()-start), threads=torch.get_num_threads())
    else:
        preset = recipe(args, name)
        detector = train(samples, preset, seed=seed, cbs=cbs, resume=cbs and cbs.folder)
        told = told_of(preset, detector, cbs.seconds if cbs else round(time.time()-start))
    told |= dict(backbone=detector.backbone.name, thresholds={p: dict(threshold=c.threshold, held_back=c.n) for p, c in detector.calibration.items()})
    if cbs: told['curve'] = cbs.points
    if folder:
        detector.save(folder)
        (folder/'told.json').write_text(json.dumps(told))
    return detector, told


def run(args, store, on, samples, name, seed):
    "Train and judge one row with one seed, unless that was done"
    wanted = None if RUNS[name] is None else json.loads(json.dumps(asdict(recipe(args, name))))
    known = dict(on=on, seed=seed, recipe=wanted, **(dict(curve=any) if args.curve and wanted else {}), **({} if wanted else dict(name=name, scores=store.name(on, name, 0, seed))))
    if store.find(**{**known, 'name': name}): return
    if wanted and (same := store.find(**known)): return store.line(**{**same, 'name': name})
    store.check(on, name, seed, wanted, get_preset(args.preset).backbone)
    curve = Curve(few(samples, 20), wanted['epochs'], folder_of(args, on, name, seed)) if args.curve and wanted else None
    detector, told = trained(args, on, name, samples, seed, curve)
    start = time.time()
    table = detector.evaluate(samples, keep_maps=True)
    what = dict(on=on, name=name, seed=seed, **told, test_seconds=round(time.time()-start, 1))
    store.add(table, **what)
    if name == FULL and not on.count(':'):
        what.pop('curve', None)
        for a in (0., .25, .5, 1.): store.add(table.rebuild(alpha=a), **{**what, 'name': f'4c {a:g}', 'recipe': {**wanted, 'alpha': a}})
    print(f'{on}, {name}, seed {seed}: {told["seconds"]} s', table, sep='\n', flush=True)


def apart(args, store, on, sets, name, seed):
    "One model for each data set of its own"
    for part, samples in sets.items(): run(args, store, f'{on}: {part}', samples, name, seed)


def with_prompts(detector, images):
    "The `detector` with other prompts: product → image"
    norm, backbone = detector.norm, detector.backbone
    pool = PromptPool.restore(backbone, norm, list(images), [load_image(i, backbone.size) for i in images.values()], norm(backbone.encode(list(images.values()))))
    return Detector(backbone, norm, detector.model, pool, detector.scale, detector.alpha, detector.score_pool,
                    patches=detector.patches, neighbours=detector.neighbours, worth=detector.worth)


def prompt_tables(detector, samples, seeds=10):
    "Name, number and table of every way to prompt: chosen, given, drawn, turned, showing a defect, of another product"
    products, keep = detector.pool.products, dict(keep_maps=True)
    own = {p: detector.pool[p].image for p in products}
    yield 'pool', 0, detector.evaluate(samples, **keep)
    yield 'given', 0, detector.evaluate(samples, prompt='given', **keep)
    for seed in range(seeds): yield 'random', seed, detector.evaluate(samples, prompt='random', prompt_seeds=[seed], **keep)
    for turns in (1, 2):
        turned = {p: np.rot90(image, turns).copy() for p, image in own.items()}
        yield f'turned {90*turns}°', 0, with_prompts(detector, turned).evaluate(samples, prompt='given', **keep)
    bad = by_product([s for s in samples if s.label])
    orders = {p: np.random.default_rng(0).permutation(len(s)) for p, s in bad.items()}             # so that no draw is another once more
    for seed in range(3):
        draw = {p: s[orders[p][seed%len(s)]] for p, s in bad.items()}
        judged = [s for s in samples if s not in draw.values()]                                     # nobody is his own prompt
        yield 'defective', seed, with_prompts(detector, draw).evaluate(judged, prompt='given', **keep)
    for k in range(1, len(products)):
        yield 'wrong product', k, detector.evaluate(samples, prompt={p: products[(i+k)%len(products)] for i, p in enumerate(products)}, **keep)


def prompts(args, store, on, samples, name, seed):
    "Judge with many prompts"
    done = dict(on=on, name=f'{name}: all prompts', seed=f'{seed}_all', trained_with=seed, recipe=json.loads(json.dumps(asdict(recipe(args, name)))))
    if store.find(**done): return
    store.check(on, name, seed, done['recipe'], recipe(args, name).backbone)
    detector, told = trained(args, on, name, samples, seed)
    store.add(detector.evaluate(samples, keep_maps=True), on=on, name=name, seed=seed, **told)
    told = {k: told[k] for k in ('steps', 'images_seen')}
    for how, number, table in prompt_tables(detector, few(samples, 12)):
        store.add(table, False, **{**told, 'on': on, 'name': f'{name}: {how}', 'number': number, 'seed': f'{seed}_{number}', 'trained_with': seed})
        print(name, how, number, table.to_frame().loc['mean'].round(3).to_dict(), flush=True)
    store.line(**done)


def chosen(args, store, on, samples, name, seed):
    "Judge with the prompt that the pool chooses, and with that of the true product, told"
    known = dict(on=on, seed=seed, recipe=json.loads(json.dumps(asdict(recipe(args, name)))))
    ways = {f'{name}: {way}': kw for way, kw in (('chosen', {}), ('told', dict(prompt='given'))) if not store.find(**known, name=f'{name}: {way}')}
    if not ways: return
    for label in ways: store.check(on, label, seed, known['recipe'], recipe(args, name).backbone)
    detector, told = trained(args, on, name, samples, seed)
    for label, kw in ways.items():
        table = detector.evaluate(samples, keep_maps=True, **kw)
        store.add(table, False, on=on, name=label, seed=seed, **told)
        print(f'{on}, {label}, seed {seed}', table, sep='\n', flush=True)


def maps(args, store, on, samples, seed, most=3):
    "Maps of a few hazelnuts and solar cells by both models, as the model says them, before they are enlarged"
    if (file := store.folder/(slug('maps', on)+'.npz')).exists(): return print(f'{file} is there')
    groups = by_product([s for s in samples if s.split == 'test' and s.label])
    groups = {p: own for p, own in groups.items() if p == 'hazelnut' or p.startswith('elpv')} or groups             # those that may be shown
    shown = L(some(own, most) for own in groups.values()).concat()
    out = dict(image=np.array(['/'.join(Path(s.name).parts[-2:]) for s in shown]), product=np.array(shown.attrgot('product')))
    for name in ROWS['maps']:
        detector, told = trained(args, on, name, samples, seed)
        table = detector.evaluate(shown, keep_maps=True)
        errors, logits = table.grids
        out |= {f'{name}/errors': errors.half().numpy(), f'{name}/scale': detector.scale, f'{name}/alpha': detector.alpha, f'{name}/steps': told['steps']}
        if logits is not None: out[f'{name}/logits'] = logits.half().numpy()
    np.savez_compressed(file, **out)


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument('table', choices=ROWS)
    parser.add_argument('changes', nargs='*', help='name=value: changes to the recipe')
    parser.add_argument('--data', nargs='+', default=['tiles'])
    parser.add_argument('--preset', default='quick')
    parser.add_argument('--steps', type=int, default=150, help='0: as many as the recipe says')
    parser.add_argument('--seeds', type=int, nargs='+', default=[0, 1, 2])
    parser.add_argument('--rows', nargs='+', help='only these runs')
    parser.add_argument('--out', default=OUT)
    parser.add_argument('--save', help='folder for the detectors; a curve (1b) that was stopped goes on there')
    args = parser.parse_args()
    args.changes, args.curve = values(args.changes), args.table == '1b'
    on, sets = data_sets(args.data)
    samples, store = L(sets.values()).concat(), Store(args.out, tag_of(args))
    if args.table == 'maps': return maps(args, store, on, samples, args.seeds[0])
    for seed in args.seeds:
        for name in args.rows or ROWS[args.table]:
            dict(prompts=prompts, pool=chosen).get(args.table, run)(args, store, on, samples, name, seed)
            if args.table == '2': apart(args, store, on, sets, name, seed)


if __name__ == '__main__': main()
