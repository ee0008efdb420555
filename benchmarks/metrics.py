"""How long are all seven metrics of a test set as large as MVTec AD's, and how much memory do they take?

    OMP_NUM_THREADS=1 python benchmarks/metrics.py                           # --reference 15 for the reference on all products

15 products of 115 maps of 224×224 pixels, 87 M pixels, made one product after the other, as `evaluate` does it, so that memory is that of one product. The
reference is what one writes down first: scikit-learn for AUROC, AP and the precision-recall curve, and a loop over 200 thresholds and all regions
for AUPRO, which makes that number an approximation. It is timed on the first products only, since it is slow, and the ratio is of these products.
"""
import resource, sys, time

import numpy as np
from scipy.ndimage import label
from sklearn.metrics import average_precision_score, precision_recall_curve, roc_auc_score

from common import log, parser, setup
from onenip.metrics import METRICS, metrics

PRODUCTS, IMAGES, SIZE = 15, 115, 224


def product(seed):
    "Scores, labels, maps and masks of one product: noise, with rectangles of defects in three of four images"
    rng = np.random.default_rng(seed)
    maps, masks = rng.standard_normal((IMAGES, SIZE, SIZE), np.float32), np.zeros((IMAGES, SIZE, SIZE), bool)
    for i in range(IMAGES*3//4):
        for y, x in rng.integers(0, SIZE-40, (rng.integers(1, 4), 2)): masks[i, y:y+rng.integers(5, 40), x:x+rng.integers(5, 40)] = True
    maps[masks] += 2
    return maps.mean((1, 2))+masks.any((1, 2))*.01, masks.any((1, 2)).astype(int), maps, masks


def three(truth, scores):
    "AUROC, AP and F1-max by scikit-learn"
    precision, recall, _ = precision_recall_curve(truth, scores)
    return roc_auc_score(truth, scores), average_precision_score(truth, scores), (2*precision*recall/np.maximum(precision+recall, 1e-12)).max()


def plain_aupro(maps, masks, limit=.3, thresholds=200):
    "Area under the PRO curve, threshold by threshold and region by region"
    regions = [(i, parts == k) for i, mask in enumerate(masks) for parts, n in [label(mask, np.ones((3, 3)))] for k in range(1, n+1)]
    fpr, pro = [], []
    for t in np.linspace(maps.max(), maps.min(), thresholds):
        alarm = maps >= t
        pro.append(np.mean([alarm[i][region].mean() for i, region in regions]))
        fpr.append((alarm & ~masks).sum()/(~masks).sum())
    fpr, pro = np.r_[0, fpr], np.r_[0, pro]
    inside = fpr <= limit
    at_limit = np.interp(limit, fpr, pro)
    return np.trapezoid(np.r_[pro[inside], at_limit], np.r_[fpr[inside], limit])/limit


def reference(scores, labels, maps, masks):
    return dict(zip(METRICS, (*three(labels, scores), *three(masks.ravel(), maps.ravel()), plain_aupro(maps, masks))))


def memory(): return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss*(1 if sys.platform == 'darwin' else 1024)


def timed(f, data):
    "Result, wall and processor seconds"
    wall, cpu = time.perf_counter(), time.process_time()
    return f(*data), np.array([time.perf_counter()-wall, time.process_time()-cpu])


def main():
    p = parser(__doc__)
    p.add_argument('--reference', type=int, default=1, help='products on which the reference is timed')
    args = p.parse_args()
    setup(args)
    before, ours, same, plain = memory(), np.zeros(2), np.zeros(2), np.zeros(2)
    for seed in range(PRODUCTS):
        ours += timed(metrics, product(seed))[1]
    peak = memory()
    for seed in range(args.reference):                               # afterwards: its memory is not counted
        data = product(seed)
        (a, s), (b, t) = timed(metrics, data), timed(reference, data)
        same, plain = same+s, plain+t
        for k in METRICS: np.testing.assert_allclose(a[k], b[k], atol=.01 if k == 'aupro' else 1e-6)
    print(f'all seven metrics of {PRODUCTS*IMAGES} maps, {PRODUCTS*IMAGES*SIZE**2/1e6:.0f} M pixels: {ours[0]:.1f} s wall, {ours[1]:.1f} s of processor; at most {peak/1e9:.2f} GB in use, {before/1e9:.2f} GB of it before')
    if args.reference: print(f'reference on {args.reference} products: {plain[0]:.1f} s wall, {plain[1]:.1f} s of processor; {plain[0]/same[0]:.0f} times the time on the wall, {plain[1]/same[1]:.0f} times that of the processor; same numbers (AUPRO to .01)')
    log(args, setup(args), 'metrics', maps=PRODUCTS*IMAGES, seconds=dict(wall=ours[0], cpu=ours[1]), bytes=peak, bytes_before=before,
        reference=dict(products=args.reference, wall=plain[0], cpu=plain[1], package=dict(wall=same[0], cpu=same[1])))


if __name__ == '__main__': main()
