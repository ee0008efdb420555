"""How long is a step of training from features, against the plain reference with the same weights?

    OMP_NUM_THREADS=1 python benchmarks/training_step.py                     # --threads 2, --device cuda

Encoder and decoder of four layers each, 8 targets, 8 pseudo-anomalies and 8 prompts, dropout and jitter on, gradients clipped, AdamW. The reference
(plain.py) has the same arithmetic; so has the package, but where `3 prompts` says that the eight targets have three prompts between them, which the
recipe's `share_prompts` encodes once each, and `reference, fused attention`, which asks nn.MultiheadAttention for no weights. Without dropout and jitter both must agree in loss and gradients before anything is timed. What dropout and
the optimiser of the package bring is measured by taking each away. The floor is the arithmetic at the speed of a large matrix product on the same machine.
"""
from contextlib import ExitStack
from functools import partial
from unittest.mock import patch

import torch
import torch.nn.functional as F
from torch.utils.flop_counter import FlopCounterMode

import onenip.encoder
import plain
from common import parser, peak, report, setup, take_turns
from onenip.model import OneNIP
from onenip.recipes import get_preset, make_optimiser
from onenip.training import OneNIPLoss, is_fast_at_bfloat16

CHANNELS, GRID, N = 272, 14, 8


def batch(device):
    "Features of targets, pseudo-anomalies and prompts, and masks"
    torch.manual_seed(0)
    feats, pseudo, prompts = torch.randn(3, N, CHANNELS, GRID, GRID, device=device)
    masks = (F.avg_pool2d(torch.rand(N, 1, 16*GRID, 16*GRID), 31, 1, 15) > .52).float().to(device)
    return feats, pseudo, prompts, masks


class Package:
    "A step as onenip's `Learner` does it"
    def __init__(self, device, mixed=False, distinct=N, plainly=False, **kw):
        torch.manual_seed(0)
        self.model, self.distinct = OneNIP(CHANNELS, GRID, **kw).to(device).train(), distinct
        self.model.mixed, self.loss = mixed, OneNIPLoss()
        self.opt = plain.optimiser(self.model) if plainly else make_optimiser(self.model, get_preset('paper'))(self.model.parameters(), lr=1e-4)

    def __call__(self, feats, pseudo, prompts, masks):
        which = torch.arange(N, device=feats.device)%self.distinct
        self.opt.zero_grad()
        preds = self.model(torch.cat([feats, pseudo]), prompts[:self.distinct], None, which.repeat(2))
        value = self.loss(preds, feats.repeat(2, 1, 1, 1), torch.cat([torch.zeros_like(masks), masks]))
        value.backward()
        torch.nn.utils.clip_grad_norm_(self.model.parameters(), .1)
        self.opt.step()
        return value.item()


def plain_dropout():
    "The package with torch's own dropout, on attention weights too"
    stack = ExitStack()
    stack.enter_context(patch.object(onenip.encoder, '_is_slow_at_dropout', lambda x, p: False))
    return stack


def check_agreement(device):
    "Raise unless loss, gradients and the next loss are the same without dropout and jitter; how far bfloat16 is off where it is fast"
    reference = plain.Head(CHANNELS, GRID, dropout=0., jitter=0.).to(device)
    packages = dict(float32=Package(device, dropout=1e-9, jitter=0.))                             # nothing is dropped, by the code that drops
    if is_fast_at_bfloat16(device): packages['bfloat16'] = Package(device, True, dropout=1e-9, jitter=0.)
    reference.load_state_dict(packages['float32'].model.state_dict())
    opt, data = plain.optimiser(reference), batch(device)
    flat = lambda model: torch.cat([p.grad.flatten() for _, p in sorted(model.named_parameters())])
    losses = dict(reference=[plain.step(reference, opt, *data) for _ in range(3)], **{name: [p(*data) for _ in range(3)] for name, p in packages.items()})
    true, off = flat(reference), {}
    for name, p in packages.items(): off[name] = (flat(p.model)-true).norm().item()/true.norm().item()
    torch.testing.assert_close(losses['reference'], losses['float32'], rtol=1e-5, atol=0)
    if off['float32'] > 1e-3: raise AssertionError(f'gradients differ by {off["float32"]:.1e} of their length')
    print(f'losses of three steps {losses}; gradients of the third differ by {off} of their length')
    return dict(losses=losses, gradients_off=off)


def arithmetic(device):
    "Floating-point operations of a step of the reference, by torch's counter"
    head, data = plain.Head(CHANNELS, GRID, dropout=0.).to(device).train(), batch(device)
    with FlopCounterMode(display=False) as counter: plain.loss(*head(torch.cat(data[:2]), data[2]), data[0], data[3]).backward()
    return counter.get_total_flops()


def main():
    options = parser(__doc__)
    options.add_argument('--compile', action='store_true', help='time torch.compile too, with CUDA graphs on a GPU; it takes minutes to compile')
    args = options.parse_args()
    device = setup(args)
    agreement = check_agreement(device)
    data, head = batch(device), plain.Head(CHANNELS, GRID).to(device).train()
    fused = plain.Head(CHANNELS, GRID, need_weights=False).to(device).train()
    steps = {name: partial(plain.step, h, plain.optimiser(h)) for name, h in {'reference': head, 'reference, fused attention': fused}.items()}
    packages = {'package': Package(device), '3 prompts': Package(device, distinct=3), "torch's AdamW": Package(device, plainly=True)}
    if is_fast_at_bfloat16(device): packages |= {'bfloat16': Package(device, True), 'bfloat16, 3 prompts': Package(device, True, 3)}
    if args.compile:
        packages['torch.compile'] = Package(device)
        packages['torch.compile'].model.compile(mode='reduce-overhead' if device.type == 'cuda' else None)           # as onenip_learner does it
    def with_torchs_dropout(*data):
        with plain_dropout(): packages['package'](*data)
    candidates = {name: partial(f, *data) for name, f in {**steps, **packages, "torch's dropout": with_torchs_dropout}.items()}
    flops, peaks = arithmetic(device), {name: peak(device, getattr(torch, name)) for name in agreement['gradients_off']}
    for name, p in peaks.items(): print(f'floor: {flops/1e9:.0f} GFLOP at {p/1e9:.0f} GFLOP/s in {name}: {flops/p:.3f} s')
    times = take_turns(candidates, args.rounds, device)
    report(args, device, 'training_step', '4+4 layers, 8+8+8', times, flops=flops, peaks=peaks, agreement=agreement)


if __name__ == '__main__': main()
