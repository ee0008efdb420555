"""How long does a pseudo-anomaly take, made by itself by a processor, or as one of a batch on the device?

    OMP_NUM_THREADS=1 python benchmarks/synthesis.py                         # --threads 2, --device cuda

64 hazelnuts of 224 px, textures of scikit-image and of crops of solar cells, all read before. `as a batch` has both parts: what is left to the processor
(textures, random numbers, the batch in one piece, its way to the device), and what is done there, which is also timed alone.
"""
import numpy as np
import torch

from common import parser, report, setup, take_turns
from onenip.all import *

N, SIZE = 64, 224


def main():
    args = parser(__doc__).parse_args()
    device = setup(args)
    nuts = normals(hazelnut())
    images, textures = [load_image(nuts[i%len(nuts)], SIZE) for i in range(N)], Textures(samples=normals(elpv(20, 20)))
    textures.read_all((SIZE, SIZE))
    rng = np.random.default_rng(0)
    def parts(): return [torch.from_numpy(np.stack(p)).to(device) for p in zip(*[batch_parts(i, rng, textures, 'hazelnut') for i in images])]
    def one_by_one():
        for i in images: synthesize(i, rng, textures, 'hazelnut')
    there = parts()
    times = take_turns({'one by one': one_by_one, 'as a batch': lambda: synthesize_batch(*parts()), 'on the device alone': lambda: synthesize_batch(*there)}, args.rounds, device)
    report(args, device, 'synthesis', f'{N} images of {SIZE} px', times, against='one by one', n=N, unit='ms')


if __name__ == '__main__': main()
