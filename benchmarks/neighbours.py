"""How much of the residual map should be the distance to the nearest normal patch?

    python benchmarks/search.py name --save folder       a detector for the products to choose on
    python benchmarks/neighbours.py folder               (`--on report`: for one trained on the products to report on)

Nothing is trained; every share has the c that a detector with it would have. Adds a line to `nbs/experiments/neighbours.jsonl`: for every share and every weight of the refined map the
I-AUROC of each product, by squares as the recipe has them, and the P-AP of those with masks. On `report` only of the products that nothing was chosen on.
"""
import argparse, json
from pathlib import Path

from onenip.all import *
from onenip.inference import _seeded_pairs
from search import LOG, REPORTED, SETS, maps_of, scores

SHARES, ALPHAS = (0., .5, .75, .9, 1.), (0., .5, .75, .8, .85, .9, .95, .97, .98, .99, 1.)


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument('detector', help='folder, as benchmarks/search.py --save writes it')
    parser.add_argument('--on', choices=SETS, default='choose')
    parser.add_argument('--out', type=Path, default=LOG.with_name('neighbours.jsonl'), help='file that gets the line')
    args = parser.parse_args()
    detector = Detector.load(args.detector)
    samples, seed = SETS[args.on](), detector.info['seed']
    test = samples.filter(lambda s: s.split == 'test' and (args.on != 'report' or s.product in REPORTED))
    dls = onenip_dls(samples, detector.backbone, seed=seed, epoch_steps=1, batched=False)
    detector.patches = detector.patches or normal_patches(dls.bank, seed=seed)             # those that `quick_neighbours` keeps, training is the same
    images, pseudo, products = _seeded_pairs(dls)                                           # what c was made of
    detector._set_worth(images, products)                                                   # what distances are worth, before they are mixed
    ends = []
    for detector.neighbours in (0., 1.):
        residual, refined, _ = maps_of(detector, test)
        ends.append(residual)
    found = {}
    for share in SHARES:
        detector.neighbours = share
        detector.set_scale(images, pseudo, products)
        for alpha in ALPHAS:
            maps = fuse(ends[0].lerp(ends[1], share), refined, detector.scale, alpha)
            pooled = scores(test, maps, detector.score_pool)
            found[f'{share}/{alpha}'] = {p: {**row, **pooled[p]} for p, row in scores(test, maps, None).items()}
    line = dict(on=args.on, seed=seed, recipe=detector.info['recipe'], scores=found)
    with args.out.open('a') as f: f.write(json.dumps(line)+'\n')


if __name__ == '__main__': main()
