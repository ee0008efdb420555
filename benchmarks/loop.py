"""How many images a second does the whole training loop learn from, from files, from the second epoch on?

    OMP_NUM_THREADS=1 python benchmarks/loop.py lite0                        # or b4; --threads 2 --workers 2, --device cuda --workers 12 --bs 64

The reference (plain.py) sends target, pseudo-anomaly and prompt of every sample through the whole backbone in every step, in single precision; on a processor both make
their pseudo-anomalies by the same function, on a GPU onenip makes them there. onenip keeps what it has read and resized (up to a gigabyte, before workers are forked, which share it); the reference reads its files
again. Recipe `paper`, 4+4 layers; `reuse 4` departs from it further than `quick`, which has 2: a pseudo-anomaly is used in four rounds, so three of four need neither be made
nor pass the backbone. `waiting` is the share of the time in which a step waits for its batch. Workers start anew in every epoch.
The b4 has random weights: that changes no duration. Images are hazelnuts, enlarged to PNG files of `--pixels` a side.
"""
import tempfile, time
from pathlib import Path

import numpy as np
import torch
from fastai.callback.core import Callback
from PIL import Image

import plain
from common import parser, report, setup
from onenip.all import *

BACKBONES = dict(lite0='tf_efficientnet_lite0', b4='tf_efficientnet_b4')


def files(folder, pixels):
    "Normal hazelnuts as files of `pixels` a side"
    for i, s in enumerate(normals(hazelnut())): Image.fromarray(load_image(s, pixels)).save(Path(folder)/f'{i}.png')
    return L(Sample(f, 'hazelnut') for f in sorted(Path(folder).glob('*.png')))


class Clock(Callback):
    "Seconds of the training part of the last epoch, and how much of it was spent waiting for batches"
    order = -99
    def before_train(self): self.start = self.last = time.perf_counter(); self.cpu, self.waited = time.process_time(), 0
    def before_batch(self):
        if self.training: self.waited += time.perf_counter()-self.last
    def after_train(self): self.spent = time.perf_counter()-self.start, time.process_time()-self.cpu


class Mark(Callback):
    "Tells the clock when a step has ended"
    order = 100
    def __init__(self, clock): self.clock = clock
    def after_batch(self):
        if self.dls.device.type == 'cuda': torch.cuda.synchronize()
        self.clock.last = time.perf_counter()


class Triples:
    "Target, prompt, pseudo-anomaly and mask from files"
    def __init__(self, samples, size, n): self.samples, self.size, self.n, self.textures = samples, size, n, Textures()
    def __len__(self): return self.n
    def __getitem__(self, i):
        rng = np.random.default_rng()
        target, prompt = (load_image(self.samples[rng.integers(len(self.samples))], self.size) for _ in range(2))
        pseudo, mask = synthesize(target, rng, self.textures, 'hazelnut')
        return target, prompt, pseudo, mask[None].astype(np.float32)


class Reference:
    "Epochs of the plain loop"
    def __init__(self, samples, backbone, norm, args, device):
        self.features, self.device = plain.Features(backbone, norm).to(device), device
        self.head = plain.Head(backbone.channels, backbone.grid).to(device).train()
        self.opt = plain.optimiser(self.head)
        self.loader = torch.utils.data.DataLoader(Triples(samples, backbone.size, args.bs*args.steps), args.bs, num_workers=args.workers)

    def __call__(self):
        wall, cpu, last, waited = time.perf_counter(), time.process_time(), time.perf_counter(), 0
        for batch in self.loader:
            waited += time.perf_counter()-last
            target, prompt, pseudo, mask = (b.to(self.device) for b in batch)
            plain.step(self.head, self.opt, self.features(target), self.features(pseudo), self.features(prompt), mask)
            last = time.perf_counter()
        return time.perf_counter()-wall, time.process_time()-cpu, waited


class Package:
    "Epochs of onenip's loop"
    def __init__(self, samples, backbone, args, device, mixed, reuse=1):
        dls = onenip_dls(samples, backbone, bs=args.bs, epoch_steps=args.steps, num_workers=args.workers, device=device, cache=False, reuse=reuse)
        self.clock = Clock()
        self.learn = onenip_learner(dls, 'paper', mixed=mixed, cbs=[self.clock, Mark(self.clock)])

    def __call__(self):
        with self.learn.no_bar(), self.learn.no_logging(): self.learn.fit_onenip(1)
        return *self.clock.spent, self.clock.waited


def main():
    p = parser(__doc__, rounds=3)
    p.add_argument('backbone', choices=BACKBONES)
    p.add_argument('--bs', type=int, default=8)
    p.add_argument('--steps', type=int, default=8, help='of an epoch; starting the workers is part of each')
    p.add_argument('--workers', type=int, default=0, help='processes that make pseudo-anomalies')
    p.add_argument('--pixels', type=int, default=1024)
    args = p.parse_args()
    device = setup(args)
    with tempfile.TemporaryDirectory() as folder:
        samples = files(folder, args.pixels)
        backbone = Backbone(BACKBONES[args.backbone], pretrained=args.backbone == 'lite0').to(device)
        ours = {'package, float32': Package(samples, backbone, args, device, False)}
        if is_fast_at_bfloat16(device): ours |= {'package, bfloat16': Package(samples, backbone, args, device, True), 'bfloat16, reuse 4': Package(samples, backbone, args, device, True, 4)}
        candidates = dict(reference=Reference(samples, backbone, ours['package, float32'].learn.dls.bank.norm, args, device), **ours)
        spent = {name: [] for name in candidates}
        for turn in range(args.rounds+1):
            for name, epoch in candidates.items():
                result = epoch()
                if turn: spent[name].append(result)
    times = {name: dict(zip(('wall', 'cpu'), zip(*[s[:2] for s in own]))) for name, own in spent.items()}
    waiting = {name: sum(s[2] for s in own)/sum(s[0] for s in own) for name, own in spent.items()}
    report(args, device, 'loop', f'{args.backbone}, batches of {args.bs}, {args.workers} workers', times, n=args.bs*args.steps, waiting=waiting, unit='ms')
    for name, t in times.items(): print(f'{name}: {args.bs*args.steps/np.median(t["wall"]):.2f} images a second, waiting {waiting[name]:.1%}')


if __name__ == '__main__': main()
