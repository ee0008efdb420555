"""How much of the residual map should be the distance to the nearest normal patch?

    python benchmarks/search.py neighbours --preset quick_neighbours --save folder      a detector for the products to choose on
    python benchmarks/neighbours.py folder                                              (`--on report`: for one trained on the products to report on)

Nothing is trained, and c stays as it is in the detector. Adds a line to `nbs/experiments/neighbours.jsonl`: for every share and every weight of the refined map the
I-AUROC of each product, by squares as the recipe has them, and the P-AP of those with masks.
"""
import argparse, json

from onenip.all import *
from search import LOG, SETS, maps_of, scores

SHARES, ALPHAS = (0., .5, .75, .9, 1.), (0., .5, .75, .8, .85, .9, .95, 1.)


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument('detector', help='folder, as benchmarks/search.py --save writes it')
    parser.add_argument('--on', choices=SETS, default='choose')
    args = parser.parse_args()
    detector = Detector.load(args.detector)
    if not detector.patches: raise SystemExit(f'{args.detector} keeps no normal patches: train it with --preset quick_neighbours')
    test = SETS[args.on]().filter(lambda s: s.split == 'test')
    ends = []
    for detector.neighbours in (0., 1.):
        residual, refined, _ = maps_of(detector, test)
        ends.append(residual)
    found = {}
    for share in SHARES:
        for alpha in ALPHAS:
            maps = fuse(ends[0].lerp(ends[1], share), refined, detector.scale, alpha)
            pooled = scores(test, maps, detector.score_pool)
            found[f'{share}/{alpha}'] = {p: {**row, **pooled[p]} for p, row in scores(test, maps, None).items()}
    line = dict(on=args.on, seed=detector.info['seed'], recipe=detector.info['recipe'], scores=found)
    with LOG.with_name('neighbours.jsonl').open('a') as f: f.write(json.dumps(line)+'\n')


if __name__ == '__main__': main()
