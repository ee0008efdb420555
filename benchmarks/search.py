"""Train with changes to a recipe, and log how well the result finds defects.

    python benchmarks/search.py base                                   the recipe `quick` as it is
    python benchmarks/search.py jitter0 jitter=0 lr=2e-3               with changes: fields of `Preset`, arguments of `OneNIP`
    python benchmarks/search.py long epochs=40 --on report --seed 2    on the products that are reported
    python benchmarks/search.py nearest --on report                    `nearest...`: the training-free detector
    python benchmarks/search.py paper --preset paper backbone=tf_efficientnet_lite0

Settings are chosen on magnetic tiles, hazelnuts and solar cells (`--on choose`). With `--on report` a model is trained on all five products of the
folder ONENIP_SHARED/data, of which only cubes, pcb_pairs and tire are reported. A run adds a line to `nbs/experiments/search.jsonl` (`--out`): for every way of weighing the
two maps and of scoring an image, the I-AUROC of each product, and the P-AP of those with masks.
"""
import argparse, ast, json, time
from contextlib import nullcontext
from pathlib import Path
from unittest.mock import patch

import numpy as np
import torch
from fastai.callback.core import Callback
from fastprogress.fastprogress import progress_bar
from sklearn.metrics import roc_auc_score

import onenip.training
from onenip.all import *
from onenip.data import _shared
from onenip.metrics import average_precision, threshold_counts
from tricks import tricks

LOG = Path(__file__).resolve().parent.parent/'nbs/experiments/search.jsonl'
ALPHAS, POOLS = (0., .5, .75, .95, 1.), (None, 16, 32, 'top')


def some(samples, n):
    "`n` of `samples`, always the same"
    return samples[np.random.default_rng(0).permutation(len(samples))[:n].tolist()]


def products_to_choose_on():
    "Hazelnuts, solar cells, and a part of the magnetic tiles"
    known = get_samples(_shared('data'), quiet=True)
    tiles = known.filter(lambda s: s.product == 'magnetic_tile')
    test = tiles.filter(lambda s: s.split == 'test')
    return (known.filter(lambda s: s.product == 'hazelnut') + some(normals(tiles), 160) + some(test.filter(lambda s: not s.label), 60)
            + some(test.filter(lambda s: s.label), 120) + elpv(80, 70))


SETS = dict(choose=products_to_choose_on, report=lambda: get_samples(_shared('data'), quiet=True), hazelnut=hazelnut) # the last is there for everybody
REPORTED = 'cubes', 'pcb_pairs', 'tire' # of `report`, what nothing was chosen on


@torch.no_grad()
def maps_of(detector, samples, bs=32):
    "Residual and refined maps (n 1 size size) of `samples`, and the product that was chosen for each"
    outs = [detector.infer(samples[i:i+bs]) for i in progress_bar(range(0, len(samples), bs))]
    join = lambda k: None if outs[0][k] is None else torch.cat([o[k] for o in outs])
    return join('residual_map'), join('refined_map'), sum([o['product'] for o in outs], [])


def scores(samples, maps, pool):
    "I-AUROC of each product; and P-AP of those with masks, if no `pool` is given"
    size, out = maps.shape[-1], {}
    image = (maps.flatten(1).topk(maps[0].numel()//100).values.mean(1) if pool == 'top' else image_score(maps, pool)).numpy()            # 'top': mean of the highest 1 %
    for product in by_product(samples):
        own = [i for i, s in enumerate(samples) if s.product == product]
        row = out[product] = dict(i_auroc=roc_auc_score([samples[i].label for i in own], image[own]))
        if pool is None and any(samples[i].mask is not None for i in own):
            own = [i for i in own if not samples[i].label or samples[i].mask is not None]            # where the truth is known
            masks = [np.zeros((size, size), bool) if samples[i].mask is None else load_mask(samples[i].mask, size) for i in own]
            row['p_ap'] = float(average_precision(threshold_counts(maps[own].numpy(), np.stack(masks))))        # thirty times as fast as scikit-learn's, and the same
    return out


def evaluate(detector, samples):
    "Scores for every weight of the refined map and every way to score an image, and the share of right products"
    test = samples.filter(lambda s: s.split == 'test')
    residual, refined, chosen = maps_of(detector, test)
    weights = ALPHAS if refined is not None else (0.,)
    table = {f'{a}/{p}': scores(test, fuse(residual, refined, detector.scale, a), p) for a in weights for p in POOLS}
    return dict(scores=table, right=float(np.mean([a == b for a, b in zip(chosen, test.attrgot('product'))])))


class Watch(Callback):
    "What a run tells of itself: seconds, steps, and the parts of the loss in twenty averages"
    def before_fit(self): self.start = time.time()

    def after_fit(self):
        parts = self.learn.parts
        self.told = dict(seconds=round(time.time()-self.start), steps=len(parts), bfloat16=self.learn.model.mixed,
                         parts={k: [round(float(np.mean(p)), 4) for p in np.array_split([q[k] for q in parts], 20)] for k in parts[0]})


def mixed(p_cutpaste=.5, local=0.):
    "`synthesize` with another mix: the share of CutPaste, and the share that is made within a window of .15 to 1 of each side, so smaller"
    def made(image, rng, textures, product):
        if not rng.random() < local: return synthesize(image, rng, textures, product, p_cutpaste)
        share = np.exp(rng.uniform(np.log(.15), 0))
        size = [max(int(n*share), 16) for n in image.shape[:2]]
        there = tuple(slice(start := int(rng.integers(0, n-m+1)), start+m) for n, m in zip(image.shape[:2], size))
        pseudo, mask = image.copy(), np.zeros(image.shape[:2], bool)
        pseudo[there], mask[there] = synthesize(image[there], rng, textures, product, p_cutpaste)
        return pseudo, mask
    return made


def run(samples, preset, seed, changes, mix, cbs):
    "A trained detector, and what the run told"
    watch = Watch()
    with patch.object(onenip.training, 'synthesize', mixed(**mix) if mix else synthesize): detector = train(samples, preset, seed=seed, cbs=[watch, *cbs], batched=False, **changes)
    return detector, watch.told


def value(text):
    "A number, a name or None of the command line"
    try: return ast.literal_eval(text)
    except (ValueError, SyntaxError): return text


def values(said): return {k: value(v) for k, v in (c.split('=', 1) for c in said)}               # of the command line, each name=value


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument('name', help='of the run; `nearest...` is the training-free detector')
    parser.add_argument('changes', nargs='*', help='name=value')
    parser.add_argument('--preset', default='quick')
    parser.add_argument('--on', choices=SETS, default='choose')
    parser.add_argument('--seed', type=int, default=0)
    parser.add_argument('--save', help='folder for the detector')
    parser.add_argument('--out', type=Path, default=LOG, help='file that gets the line')
    parser.add_argument('--mix', nargs='+', default=[], help='of pseudo-anomalies: p_cutpaste=.25, local=.5')
    parser.add_argument('--trick', choices=tricks, help='what no recipe has, see tricks.py')
    args = parser.parse_intermixed_args()
    changes, mix = values(args.changes), values(args.mix)
    samples = SETS[args.on]()
    with tricks[args.trick]() if args.trick else nullcontext([]) as cbs:
        if args.name.startswith('nearest'): detector, told = NearestNeighbour.fit(samples, Backbone('tf_efficientnet_lite0', **changes), seed=args.seed), {}
        else: detector, told = run(samples, args.preset, args.seed, changes, mix, cbs)
        found = evaluate(detector, samples)
    if args.save: detector.save(args.save)
    line = dict(name=args.name, preset=args.preset, on=args.on, seed=args.seed, changes=changes, mix=mix, trick=args.trick, recipe=detector.info.get('recipe'), threads=torch.get_num_threads(), **told, **found)
    with args.out.open('a') as f: f.write(json.dumps(line)+'\n')
    for key, row in line['scores'].items():
        print(f'{key:9}', ' '.join(f"{p} {v['i_auroc']:.3f}" + (f"/{v['p_ap']:.3f}" if 'p_ap' in v else '') for p, v in row.items()))


if __name__ == '__main__': main()
