"""What do the parts of the network cost, and how near are they to what the machine can do?

    OMP_NUM_THREADS=1 python benchmarks/parts.py                             # --threads 2, --device cuda

Forward passes of 16 images of 224 px without gradients, in single precision: operations by torch's counter, bytes by what
every operation of torch reads and writes, and the time. With the peak of a large matrix product and the bandwidth of a copy this gives the roofline: a part can reach at most the smaller of
peak and bandwidth times operations a byte.
"""
import torch
from torch.nn.attention import SDPBackend, sdpa_kernel
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves
from torch.utils.flop_counter import FlopCounterMode

from common import log, parser, peak, setup, take_turns
from onenip.all import *
from onenip.encoder import FastDropout

N, GRID, WIDTH = 16, 14, 256


class Bytes(TorchDispatchMode):
    "Counts what the operations read and write, views not"
    def __init__(self): super().__init__(); self.total = 0
    def __torch_dispatch__(self, func, types, args=(), kwargs=None):
        out = func(*args, **(kwargs or {}))
        if not func.is_view: self.total += sum(t.numel()*t.element_size() for t in tree_leaves((args, kwargs, out)) if isinstance(t, torch.Tensor))
        return out


def parts(device):
    "Name → module and inputs"
    tokens = torch.randn(N, GRID**2, WIDTH, device=device)
    model = OneNIP().to(device).eval()
    pos, mask = model.pos().detach(), model.mask
    attention, layer = model.encoder.layers[0].self_attn, model.encoder.layers[0]
    dropping = Attention(WIDTH, 8, .1).to(device).train()
    pixels = torch.randn(N, 3, 16*GRID, 16*GRID, device=device)
    return {'MLP': (model.decoder.layers[0].mlp, (tokens,)), 'attention': (attention, (tokens, tokens, tokens, mask)),
            'attention, dropping': (dropping, (tokens, tokens, tokens, mask)), 'encoder layer': (layer, (tokens, pos, mask)),
            'decoder layer': (model.decoder.layers[0], (tokens, tokens, pos, mask)), 'refiner': (model.refiner, (torch.rand(N, 272, GRID, GRID, device=device),)),
            'LayerNorm': (layer.norm1, (tokens,)), 'dropout': (FastDropout(.1).train(), (tokens,)),
            'backbone lite0': (Backbone('tf_efficientnet_lite0', pretrained=False).to(device).folded(), (pixels.contiguous(memory_format=torch.channels_last),)),
            'backbone b4': (Backbone('tf_efficientnet_b4', pretrained=False).to(device).folded(), (pixels.contiguous(memory_format=torch.channels_last),))}


@torch.no_grad()
def main():
    args = parser(__doc__).parse_args()
    device = setup(args)
    big, other = torch.randn(2, 64_000_000, device=device)
    copy = take_turns(dict(copy=lambda: other.copy_(big)), args.rounds, device)['copy']
    clock = 'cpu' if device.type == 'cpu' and args.threads == 1 else 'wall'          # one thread: what others use of the machine is left out
    limits = dict(flops=peak(device, torch.float32), bytes=2*big.numel()*4/min(copy[clock]))
    del big, other
    known, rows = parts(device), {}
    times = take_turns({name: lambda m=m, x=x: m(*x) for name, (m, x) in known.items()}, args.rounds, device)
    for name, (module, inputs) in known.items():
        with sdpa_kernel(SDPBackend.MATH), FlopCounterMode(display=False) as counter: module(*inputs)        # the counter knows no other attention of the CPU
        with Bytes() as moved: module(*inputs)
        rows[name] = dict(flops=counter.get_total_flops(), bytes=moved.total, seconds=sorted(times[name][clock])[args.rounds//2])
        r = rows[name]
        print(f"parts, {args.threads} threads, {device.type}: {name:20} {r['seconds']*1e3/N:8.2f} ms an image, {r['flops']/r['seconds']/1e9:7.1f} GFLOP/s, {r['flops']/r['bytes']:7.1f} FLOP a byte", flush=True)
    print(f"limits: {limits['flops']/1e9:.0f} GFLOP/s, {limits['bytes']/1e9:.1f} GB/s")
    log(args, device, 'parts', n=N, clock=clock, limits=limits, parts=rows)


if __name__ == '__main__': main()
