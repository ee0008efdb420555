"""Other ways to measure how far the restored features are from the image's: is there a better residual map than the paper's length of the difference?

    python benchmarks/search.py longer epochs=24 --save folder      a detector for the products to choose on
    python benchmarks/residuals.py folder

Statistics come from at most 64 normal training images of each product, and are taken for the product that the pool chose. Nothing is trained. Adds a line to
`nbs/experiments/residuals.jsonl`: for each way the I-AUROC of each product and the P-AP of those with masks, of the residual map alone and mixed with the refined one as the recipe mixes them.
"""
import argparse, json
from pathlib import Path

import numpy as np
import torch

from onenip.all import *
from onenip.inference import maps_of
from search import LOG, SETS, scores, some


@torch.no_grad()
def errors_of(detector, samples, bs=4):
    "Restored minus given features (n c g g), the features, refined maps, and chosen products"
    outs = []
    for i in range(0, len(samples), bs):                                                             # no more than the backbone takes at once
        found = detector.infer(samples[i:i+bs])
        feats, which = detector._features(found['image']), [detector.pool.index(p) for p in found['product']]
        restored = detector.model.restore(feats, prompt_tokens=detector.tokens[which])
        outs.append((restored-feats, feats, found['refined_map'], found['product']))
    *tensors, chosen = zip(*outs)
    return *map(torch.cat, tensors), sum(chosen, [])


def length(e): return e.norm(dim=1, keepdim=True)

def deviation(e): return e.transpose(0, 1).flatten(1).std(1).view(1, -1, 1, 1)


def mahalanobis(e, normal, shrink=.1):
    "Distance of errors from those of normal images, by their covariance, shrunk towards a multiple of the identity"
    x = normal.transpose(0, 1).flatten(1)
    cov = (1-shrink)*torch.cov(x) + shrink*x.var(1).mean()*torch.eye(len(x))
    apart = e.flatten(2)-x.mean(1)[:, None]
    return torch.einsum('bci,cd,bdi->bi', apart, torch.linalg.inv(cov), apart).clamp_min(0).sqrt().reshape(len(e), 1, *e.shape[2:])


WAYS = { # name → residual of errors and features, given the errors of normal images of the product
    'length (paper)': lambda e, f, n: length(e),
    'sum of magnitudes': lambda e, f, n: e.abs().sum(1, keepdim=True),
    'cosine distance': lambda e, f, n: 1-torch.cosine_similarity(e+f, f, dim=1)[:, None],
    'channels standardised': lambda e, f, n: length(e/deviation(n)),
    'Mahalanobis': lambda e, f, n: mahalanobis(e, n),
    'less the mean at this place': lambda e, f, n: length(e)-length(n).mean(0),
    'standardised at this place': lambda e, f, n: (length(e)-length(n).mean(0))/(length(n).std(0)+.3*length(n).std(0).mean())}


def judge(way, detector, test, found, normal):
    "I-AUROC and P-AP of the residual map measured by `way`, alone and mixed with the refined map, in the same share for every way"
    errors, feats, refined, chosen = found
    grids = torch.empty(len(errors), 1, *errors.shape[2:])
    for p in set(chosen):
        own = torch.tensor([c == p for c in chosen])
        grids[own] = way(errors[own], feats[own], normal[p])
    residual, _ = maps_of(grids, None, detector.size)
    usual, _ = maps_of(length(errors), None, detector.size)
    scale = detector.scale*residual.std()/usual.std()                                                # the same share of the refined map for every way
    return {a: {p: {**row, **scores(test, maps, detector.score_pool)[p]} for p, row in scores(test, maps, None).items()}
            for a, maps in ((0, residual), (detector.alpha, fuse(residual, refined, scale, detector.alpha)))}


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument('detector', help='folder, as benchmarks/search.py --save writes it')
    parser.add_argument('--on', choices=SETS, default='choose')
    parser.add_argument('--out', type=Path, default=LOG.with_name('residuals.jsonl'), help='file that gets the lines')
    args = parser.parse_args()
    detector, samples = Detector.load(args.detector), SETS[args.on]()
    test = samples.filter(lambda s: s.split == 'test')
    normal = {p: errors_of(detector, some(own, 64))[0] for p, own in by_product(normals(samples)).items()}
    found = errors_of(detector, test)
    with args.out.open('a') as f:
        for name, way in WAYS.items():
            result = judge(way, detector, test, found, normal)
            f.write(json.dumps(dict(on=args.on, way=name, recipe=detector.info.get('recipe'), seed=detector.info.get('seed'), scores=result))+'\n')
            print(f'{name:30}', *(f"{np.mean([r['i_auroc'] for r in v.values()]):.3f}/{np.mean([r['p_ap'] for r in v.values() if 'p_ap' in r]):.3f}" for v in result.values()), flush=True)


if __name__ == '__main__': main()
