"""What the paper printed, what was run here, and the difference with its interval: shared by the notebooks of this folder.

`paper.csv` holds the results that are printed in Bin-Bin Gao, "Learning to Detect Multi-class Anomalies with Just One Normal Image
Prompt", ECCV 2024: Tables 1, 2, 4a-d, 5 (pixels), 6 (images), and one sentence of the text. Runs are those that
`benchmarks/tables.py` left in `scores/`.
"""
import json, os, subprocess, sys, tempfile, warnings
from dataclasses import asdict
from functools import lru_cache
from pathlib import Path
from zlib import crc32

import matplotlib.pyplot as plt
import numpy as np
import pandas as pd

warnings.filterwarnings('ignore', '.*torch.jit.script', FutureWarning) # given when timm is imported

from onenip.evaluation import _HEADS as HEADS
from onenip.metrics import METRICS, _draws, _redrawn, aupro, auroc, average_precision, f1_max
from onenip.recipes import Preset, get_preset, presets

HERE = Path(__file__).resolve().parent
SCORES, TABLES = HERE/'scores', HERE.parent.parent/'benchmarks/tables.py'
FULL, UNIAD, NEAREST = '4a dynamic+restoration+refiner', '4a none', 'neighbour'
SEEN = presets['paper'].epochs*-(-3629//presets['paper'].bs)*presets['paper'].bs # images in the paper's training: MVTec AD has 3,629 normal ones to train on, the last batch is filled up
DRAWS = 500


def printed(table, dataset='MVTec AD', product='mean'):
    "What the paper printed, percent: a row a method"
    frame = pd.read_csv(HERE/'paper.csv', dtype=dict(table=str))
    own = frame[(frame.table == table) & (frame.dataset == dataset) & ((frame['product'] == product) if product else True)]
    if not len(own): raise ValueError(f'table {table!r} of {dataset!r}: not in paper.csv')
    return own.pivot(index='method' if product else ['product', 'method'], columns='metric', values='value').reindex(own.method.unique() if product else None)


SETS = 'MVTec AD', 'VisA', 'BTAD'

def dataset_of(products):
    "The data set of the paper that has just these products, None if there is none"
    return next((d for d in SETS if set(printed('6', d, None).index.get_level_values(0))-{'mean'} == set(products)), None)


def every(folder=None):
    "All that was run: a dict each, its `scores` where they lie; of what was run twice by one recipe the last"
    log = Path(folder or SCORES).resolve()/'runs.jsonl'
    lines = [json.loads(line) for line in log.read_text(encoding='utf-8').splitlines()] if log.exists() else []
    if folder: lines = [{**r, 'scores': str(log.parent/r['scores'])} if 'scores' in r else r for r in lines]
    return list({(r['on'], r['name'], r['seed'], (r.get('recipe') or {}).get('name')): r for r in lines}.values())


def runs(on='tiles', folder=None, **what):
    "What was run on a data set, those that have `what`"
    return [r for r in every(folder) if r['on'] == on and all(r.get(k) == v for k, v in what.items())]


def scores_of(name):
    "What was kept of each image of a run"
    return pd.read_csv(SCORES/f'{name}.csv', dtype=dict(product=str, prompt=str))


def weights_of(labels, product):
    "How often each image counts (1+DRAWS, n): first once, then drawn anew; the same draws for all who judged these images of a product"
    return np.concatenate([np.ones((1, len(labels)), np.float32), _draws(labels, DRAWS, np.random.default_rng(crc32(product.encode())))])


def of_images(scores, labels, weights):
    "Metrics of images (1+DRAWS,) that count so often"
    hot = np.eye(len(labels))[np.unique(scores, return_inverse=True)[1]]
    c = _redrawn(weights, hot*labels[:, None], hot*(1-labels[:, None]), hot*labels[:, None])
    return dict(zip(METRICS, (auroc(c), average_precision(c), f1_max(c))))


@lru_cache(None)
def redrawn(name):
    "Product → metric → its value (1+DRAWS,): first of the images as they are, then of images drawn anew; the same draws in every run that judged these images"
    scores, out = scores_of(name), {}
    pixels = np.load(SCORES/f'{name}.npz') if (SCORES/f'{name}.npz').exists() else {}
    for product, own in scores.groupby('product'):
        labels = own.label.to_numpy()
        weights = weights_of(labels, product)
        out[product] = of_images(own.image_score, labels, weights)
        if f'{product}/places' not in pixels: continue
        known = own.index.get_indexer(pixels[f'{product}/places'])
        c = _redrawn(weights[:, known], *(pixels[f'{product}/{k}'] for k in ('bad', 'good', 'region')))
        out[product] |= dict(zip(METRICS[3:], (auroc(c), average_precision(c), f1_max(c), aupro(c))))
    return out


def measured(run, metric, products=None):
    "A metric's mean over products, percent, as it was measured"
    own = [v[metric] for p, v in run['metrics'].items() if v[metric] is not None and (products is None or p in products)]
    return 100*np.mean(own) if own else np.nan


def draws_of(run, metric, products=None):
    "A metric's mean over products, percent (1+DRAWS,): first as it was measured, then of images drawn anew"
    own = redrawn(run['scores'])
    found = [p for p in products or own if metric in own[p]]
    return measured(run, metric, found) + 100*np.mean([own[p][metric]-own[p][metric][0] for p in found], 0)     # without what the bins lose


def by_seed(name, metric, on='tiles', products=None):
    "Seed → `draws_of` the runs called `name`"
    return {r['seed']: draws_of(r, metric, products) for r in runs(on, name=name)}


def interval(values):
    "Mean over seeds (s, 1+DRAWS), and its interval of 95 %: seeds and images drawn anew"
    s, rng = len(values), np.random.default_rng(0)
    drawn = values[rng.integers(s, size=(DRAWS, s)), np.arange(1, DRAWS+1)[:, None]].mean(1)
    return values[:, 0].mean(), *np.percentile(drawn, (2.5, 97.5))


def apart(a, b, of=np.subtract, same=False):
    """The mean of `a` less that of `b` (seeds, 1+DRAWS each), and its interval of 95 %: seeds and images drawn anew.

    The two share the test images; and the trainings too if they are the `same`, else seeds are drawn of each.
    """
    rng = np.random.default_rng(0)
    draw = lambda v: rng.integers(len(v), size=(DRAWS, len(v)))
    which = draw(a), draw(b)
    if same: which = which[0], which[0]
    x, y = (v[w, np.arange(1, DRAWS+1)[:, None]].mean(1) for v, w in zip((a, b), which))
    return of(a[:, 0].mean(), b[:, 0].mean()), *np.percentile(of(x, y), (2.5, 97.5))


def difference(a, b, metric, on='tiles', products=None):
    "What `a` has more than `b`: points, interval, and the points of each seed that both have"
    a, b = (by_seed(name, metric, on, products) for name in (a, b))
    seeds = sorted(set(a) & set(b))
    if not seeds: return dict(gain=np.nan, low=np.nan, high=np.nan, each=[])
    values = np.stack([a[s]-b[s] for s in seeds])
    return dict(zip(('gain', 'low', 'high'), interval(values)), each=[round(float(v[0]), 1) for v in values])


def less_printed(name, paper, on='tiles', products=None):
    "The means of runs, what was printed (`paper`: metric → number), and the difference with its interval, which is all ours: printed numbers have none"
    rows = {}
    for metric in paper.index:
        ours, low, high = interval(np.stack(list(by_seed(name, metric, on, products).values())))
        rows[HEADS[metric]] = dict(paper=paper[metric], ours=ours, difference=ours-paper[metric], low=low-paper[metric], high=high-paper[metric])
    return pd.DataFrame(rows).T


def beside(paper, rows, metric, on='tiles', first=None):
    "A row each of `rows` (printed name → run): the paper's number and ours, and what each adds to the `first` row"
    first, out = first or next(iter(rows)), {}
    for label, run in rows.items():
        own = by_seed(run, metric, on)
        d = difference(run, rows[first], metric, on)
        length = {r['steps'] for r in runs(on, name=run)}
        out[label] = {'paper': paper.loc[label, metric], 'ours': interval(np.stack(list(own.values())))[0] if own else np.nan,
                      'paper, gain': paper.loc[label, metric]-paper.loc[first, metric], 'ours, gain': d['gain'], 'low': d['low'], 'high': d['high'],
                      'seeds': len(own), 'steps': max(length, default=0), 'each seed': d['each']}
    return pd.DataFrame.from_dict(out, orient='index').rename_axis(HEADS[metric])


def table(frame):
    "A frame with one decimal, blanks where there is nothing"
    def one(v):
        if isinstance(v, list): return ', '.join(f'{x:+.1f}' for x in v)
        return v if not isinstance(v, float) else '' if np.isnan(v) else f'{v+0.:.1f}'.replace('-0.0', '0.0')
    counts = [k for k in ('seeds', 'steps', 'draws') if k in frame.columns]
    return frame.style.format(one).format('{:.0f}', counts, na_rep='')


def plot_gains(frames):
    "The gains in `frames` over their first rows: the paper's hollow, ours with interval"
    fig, axes = plt.subplots(1, len(frames), figsize=(3.6*len(frames)+1.2, .34*len(frames[0])+.9), dpi=80, sharey=True)
    for ax, frame in zip(np.atleast_1d(axes), frames):
        y = np.arange(len(frame))
        ax.axvline(0, color='.8', lw=1)
        ax.scatter(frame['paper, gain'], y-.12, facecolor='none', edgecolor='C1', label='paper')
        ax.errorbar(frame['ours, gain'], y+.12, xerr=np.abs(frame[['low', 'high']].sub(frame['ours, gain'], axis=0)).T, fmt='o', color='C0', ms=4, label='ours')
        ax.set(yticks=y, yticklabels=frame.index, xlabel=f'{frame.index.name}, points', ylim=(len(frame)-.5, -.5))
    np.atleast_1d(axes)[0].legend(fontsize=7)
    fig.tight_layout()


def changes(run):
    "What the recipe of a run changes in the one whose name it has: field → value; a field that there was not yet had its default"
    usual, had = asdict(get_preset(run['recipe']['name'])), asdict(Preset()) | run['recipe']
    return {k: had[k] for k, v in usual.items() if k not in ('model', 'epochs', 'epoch_steps', 'size') and had[k] != v}


def whole(run):
    "Was it trained as long as its recipe says?"
    usual = get_preset(run['recipe']['name'])
    return all(run['recipe'][k] == getattr(usual, k) for k in ('epochs', 'epoch_steps'))


def command(table, on='tiles', name=FULL):
    "What makes the runs of a table again: as they are here, in another folder"
    own = runs(on, name=name)
    recipe = own[0]['recipe']['name']
    return ' '.join(['python benchmarks/tables.py', table, *(f'{k}={v}' for k, v in changes(own[0]).items()), *([f'--preset {recipe}'] if recipe != 'quick' else []),
                     f"--data {on.replace('+', ' ')} --steps {0 if whole(own[0]) else own[0]['steps']} --seeds", *(str(r['seed']) for r in sorted(own, key=lambda r: r['seed'])), '--out FOLDER'])


def how_small(on='tiles', name=FULL, own=None):
    "One line on the size of the runs called `name`, or of `own`"
    own = runs(on, name=name) if own is None else own
    if not own: return f'Not run on {on} yet.'
    r = own[0]
    small, changed = r['recipe']['name'].startswith('quick') or not whole(r), ', '.join(f'{k}={v}' for k, v in changes(r).items())
    side = r['recipe'].get('score_pool')
    return (f"{r['backbone']}, {r['size']} px, recipe {r['recipe']['name']}{f' with {changed}' if changed else ''}: {r['steps']} steps, {r['images_seen']} images seen, "
            f"{len(own)} seed{'s'*(len(own) > 1)}, on {', '.join(r['metrics'])}; images scored by the maximum{f' over squares of {side} px' if side else ''}. "
            + f'The paper: EfficientNet-b4, four layers each, 1,000 epochs of MVTec AD, {SEEN/1e6:.1f} million images seen, plain maximum. These are small runs, no reproduction.'*small)


def in_small(table, *options, data='hazelnut'):
    "What the command of a table leaves when it runs from images, in two steps: does it run?"
    with tempfile.TemporaryDirectory() as folder:
        subprocess.run([sys.executable, str(TABLES), table, '--data', data, '--steps', '2', '--seeds', '0', '--out', folder, *options], check=True, capture_output=True)
        return every(folder)


def rerun(*tables, on='tiles'):
    "Run everything of some tables on the folders in ONENIP_DATA (joined as in PATH) with the paper's recipe; the name of the data, or `on` if it is not set"
    data, options = os.environ.get('ONENIP_DATA'), os.environ.get('ONENIP_OPTIONS', '--preset paper --steps 0').split()
    if not data:
        print('\n'.join(['ONENIP_DATA is not set, so nothing is trained. With it:', *(f'python benchmarks/tables.py {t} --data $ONENIP_DATA {" ".join(options)}' for t in tables)]))
        return on
    for t in tables: subprocess.run([sys.executable, str(TABLES), t, '--data', *data.split(os.pathsep), *options], check=True)
    return '+'.join(Path(f).name for f in data.split(os.pathsep))
