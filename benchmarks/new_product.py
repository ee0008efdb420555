"""What one good photo of a product that was not trained on is worth: lines for nbs/experiments/new_product.jsonl.

    python benchmarks/new_product.py OUT [EPOCHS]

For each of several models the recipe `quick` is trained without some products. Each of these is then added with one of its
normal training images (three draws), and judged by the model and by the nearest neighbour that has the same image.
"""
import json, math, sys

import numpy as np

from onenip.all import *
from onenip.data import _shared

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


def measure(detector, own, image):
    "Metrics of the product that `own` samples show, when `detector` knows one `image` of it"
    product, pool = own[0].product, detector.pool.copy()
    pool.add(product, image)
    one = Detector(detector.backbone, detector.norm, detector.model, pool, detector.scale, detector.alpha, detector.score_pool)
    nearest = NearestNeighbour(detector.backbone, detector.norm, pool, {}, detector.score_pool)
    similarity = pool.similarities(pool[product].feats[None])[0][:-1]
    number = lambda v: None if math.isnan(v) else v                      # no masks, no P-AP
    def table(d):
        row = d.evaluate([s for s in own if s.split == 'test'], prompt='given').to_frame().loc[product]
        return {k: number(row[k]) for k in ('i_auroc', 'p_ap')}
    return dict(product=product, similarity=similarity.max().item(), nearest=pool.products[similarity.argmax()], onenip=table(one), neighbour=table(nearest))


def main(out, epochs):
    demo, other = demo_samples(), unseen()
    for left_out in (None, 'hazelnut', 'elpv_mono', 'elpv_poly'):
        detector = train([s for s in demo if s.product != left_out], epochs=epochs, cache='/tmp/features')
        for product, own in by_product(other if left_out is None else [s for s in demo if s.product == left_out]).items():
            for draw in range(DRAWS):
                image = normals(own)[int(np.random.default_rng(draw).integers(len(normals(own))))]
                row = dict(trained_on=detector.pool.products[:], steps=epochs*50, draw=draw, **measure(detector, own, image))
                with open(out, 'a') as f: f.write(json.dumps(row)+'\n')


if __name__ == '__main__': main(sys.argv[1], int(sys.argv[2]) if len(sys.argv) > 2 else 8)
