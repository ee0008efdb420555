"""What one good photo of a product that was not trained on is worth: lines for nbs/experiments/new_product.jsonl.

    python benchmarks/new_product.py                                          # hazelnuts and solar cells, each left out in turn; and the products of ONENIP_SHARED/data
    python benchmarks/new_product.py --left-out hazelnut --steps 150          # one model only, and a short one
    python benchmarks/new_product.py reuse=4                                  # with changes to the recipe
    python benchmarks/new_product.py --data MVTEC --preset paper              # a data set: each of its products is left out in turn, all test images

A model is trained without some products. Each of these is then added with one of its normal training images (three draws), and judged by the model and by the
nearest neighbour that has the same image; the true product is told. Without `--data` up to 60 test images a product and label are judged.
"""
import argparse, json, math, time
from pathlib import Path

import numpy as np

from onenip.all import *
from onenip.data import _shared
from search import values
from tables import length, told_of

OUT = Path(__file__).resolve().parent.parent/'nbs/experiments/new_product.jsonl'
PHOTOS, DRAWS = 60, 3 # test images a product and label, and prompts


def few(samples):
    "At most `PHOTOS` test images of each product and label, and all normal training images"
    test = [s for s in samples if s.split == 'test']
    groups = {}
    for s in test: groups.setdefault((s.product, s.label), []).append(s)
    keep = [group[i] for group in groups.values() for i in sorted(np.random.default_rng(0).permutation(len(group))[:PHOTOS])]
    return normals(samples) + keep


def unseen():
    "Products of other data, if it is there"
    folder = _shared('data')
    return few(L(s for s in get_samples(folder, quiet=True) if s.product != 'hazelnut')) if folder else L()


def plans(folder):
    "Name of what is left out → samples to train on, and samples of the products that are added"
    samples, others = (get_samples(folder, quiet=True), None) if folder else (demo_samples(), unseen())
    each = {p: (samples.filter(lambda s: s.product != p), L(own)) for p, own in by_product(samples).items()}
    return {'others': (samples, others), **each} if others else each


def measure(detector, own, image):
    "Metrics and scores of the product that `own` samples show, when `detector` knows one `image` of it"
    product, pool = own[0].product, detector.pool.copy()
    pool.add(product, image)
    one = Detector(detector.backbone, detector.norm, detector.model, pool, detector.scale, detector.alpha, detector.score_pool)
    nearest = NearestNeighbour(detector.backbone, detector.norm, pool, {}, detector.score_pool)
    similarity = pool.similarities(pool[product].feats[None])[0][:-1]
    number = lambda v: None if math.isnan(v) else v                      # no masks, no P-AP
    test = [s for s in own if s.split == 'test']
    def judge(d):
        table = d.evaluate(test, prompt='given')
        row = table.to_frame().loc[product]
        return {k: number(row[k]) for k in ('i_auroc', 'p_ap')} | dict(scores=[float(f'{v:.7g}') for v in table.scores.image_score])
    return dict(product=product, similarity=similarity.max().item(), nearest=pool.products[similarity.argmax()], labels=[s.label for s in test],
                onenip=judge(one), neighbour=judge(nearest))


def main():
    p = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    p.add_argument('changes', nargs='*', help='name=value: changes to the recipe')
    p.add_argument('--data', help='folder of a data set')
    p.add_argument('--left-out', nargs='+', help='only models without these; `others` is the one that is judged on ONENIP_SHARED/data')
    p.add_argument('--preset', default='quick')
    p.add_argument('--steps', type=int, default=0, help='0: as many as the recipe says')
    p.add_argument('--seed', type=int, default=0)
    p.add_argument('--out', type=Path, default=OUT, help='file that gets a line a product and draw')
    args = p.parse_args()
    known, changes = plans(args.data), values(args.changes)
    wrong = [n for n in args.left_out or () if n not in known]
    if wrong: p.error(f'{", ".join(wrong)} cannot be left out: there are {", ".join(known)}')
    for left_out in args.left_out or known:
        samples, others = known[left_out]
        preset, start = get_preset(args.preset, **{**changes, **length(args.steps)}), time.time()
        detector = train(samples, preset, seed=args.seed)
        told = told_of(preset, detector, round(time.time()-start))
        for product, own in by_product(others).items():
            for draw, place in enumerate(np.random.default_rng(0).permutation(len(normals(own)))[:DRAWS]):
                image = normals(own)[place]
                row = dict(trained_on=detector.pool.products[:], seed=args.seed, draw=draw, **told, **measure(detector, own, image))
                with args.out.open('a') as f: f.write(json.dumps(row)+'\n')
                print(row, flush=True)


if __name__ == '__main__': main()
