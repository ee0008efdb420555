"""How fast is a detector, against a plain reference with the same weights?

    OMP_NUM_THREADS=1 python benchmarks/inference.py paper      # or quick; --threads 2, --device cuda; needs pip install 'onenip[onnx]'

The reference (plain.py) is the method as one writes it down first: the prompt image goes through backbone and encoder with every image, the backbone
is not cut behind its last used stage, attention is torch's nn.MultiheadAttention, the mask is built in every forward; `reference, fused attention` does not ask it for weights. Both are told
the product. Results must agree before anything is timed. All candidates take turns in one process, so that other load on the machine
meets all of them; medians and their ratios are printed. Weights are random where none are installed: that changes no duration.
"""
import tempfile
from pathlib import Path

import numpy as np
import torch
import torch.nn.functional as F
from torch.nn.attention import SDPBackend, sdpa_kernel
from torch.utils.flop_counter import FlopCounterMode

import plain
from common import parser, peak, report, setup, take_turns
from onenip.all import *

MODELS = dict(paper=('tf_efficientnet_b4', dict()), quick=('tf_efficientnet_lite0', dict(encoder_layers=1, decoder_layers=1)))


class Reference:
    "The whole detector, written plainly, with the weights of `detector`"
    def __init__(self, detector, **kw):
        b, self.detector = detector.backbone, detector
        self.features = plain.Features(b, detector.norm).to(b.device)
        layers = {k: detector.model.config[k] for k in ('encoder_layers', 'decoder_layers')}
        self.head = plain.Head(b.channels, b.grid, **layers, **kw).eval().to(b.device)
        self.head.load_state_dict(detector.model.state_dict())

    @torch.no_grad()
    def __call__(self, files, product):
        d, size = self.detector, self.detector.backbone.size
        pixels = np.stack([load_image(f, size) for f in files])
        prompts = np.stack([d.pool[product].image]*len(files))
        feats, prompt_feats = self.features(pixels), self.features(prompts)
        restored, logits = self.head(feats, prompt_feats)
        residual = F.interpolate((restored-feats).norm(dim=1, keepdim=True), (size, size), mode='bilinear', align_corners=True)
        maps = (1-d.alpha)*residual + d.alpha*d.scale*logits.sigmoid()
        return F.avg_pool2d(maps, d.score_pool, stride=1).flatten(1).amax(1).cpu().numpy(), maps[:, 0].cpu().numpy()


def make_detector(kind, device, size=224):
    "A detector of hazelnuts with untrained weights"
    torch.manual_seed(0)
    name, layers = MODELS[kind]
    normal = normals(hazelnut())
    backbone = Backbone(name, size, pretrained='lite0' in name).to(device)
    norm = FeatureNorm.fit(backbone.encode(normal)).to(device)
    pool = PromptPool(normal, backbone, norm=norm)
    return Detector(backbone, norm, OneNIP(backbone.channels, size//16, **layers).to(device), pool, scale=1., score_pool=16)


def check_agreement(reference, detectors, files):
    "Raise unless scores and maps are the same"
    scores, maps = reference(files, 'hazelnut')
    for other in detectors:
        found = other.predict(files)
        np.testing.assert_allclose(found.attrgot('image_score'), scores, rtol=1e-4)
        np.testing.assert_allclose(np.stack(found.attrgot('anomaly_map')), maps, rtol=1e-4, atol=1e-4*maps.max())


def arithmetic(detector, file):
    "Floating-point operations of one image, by torch's counter"
    with sdpa_kernel(SDPBackend.MATH), FlopCounterMode(display=False) as counter: detector.predict(file)         # the counter knows no other attention of the CPU
    return counter.get_total_flops()


def main():
    p = parser(__doc__, rounds=9)
    p.add_argument('model', choices=MODELS)
    args = p.parse_args()
    device = setup(args)
    detector = make_detector(args.model, device)
    references, ours = {'reference': Reference(detector), 'reference, fused attention': Reference(detector, need_weights=False)}, dict(predict=detector)
    files = ([s.image for s in hazelnut().filter(lambda s: s.split == 'test')]*3)[:64]
    with tempfile.TemporaryDirectory() as folder:
        if device.type == 'cpu': ours['onnx'] = OnnxDetector(detector.export_onnx(Path(folder)/'model.onnx'), threads=args.threads)
        for reference in references.values(): check_agreement(reference, ours.values(), files[:4])
        def predict(images, bs=None): return {name: lambda d=d: d.predict(images, bs=bs) for name, d in ours.items()}
        def plainly(images, bs=16): return {name: lambda r=r: [r(images[i:i+bs], 'hazelnut') for i in range(0, len(images), bs)] for name, r in references.items()}
        one, many = {**plainly(files[:1]), **predict(files[0])}, {**plainly(files), **predict(files)}
        report(args, device, 'inference', f'{args.model}, one image', take_turns(one, 3*args.rounds, device), unit='ms')
        report(args, device, 'inference', f'{args.model}, 64 images', take_turns(many, -(-args.rounds//2), device), n=len(files), unit='ms',
               flops=arithmetic(detector, files[0]), peaks=dict(float32=peak(device, torch.float32)))
        sizes = {f'{name}, {bs}': f for make, least in ((plainly, 4), (predict, 1)) for bs in (1, 4, 16, 32) if bs >= least for name, f in make(files[:32], bs).items()}
        report(args, device, 'batch_size', args.model, take_turns(sizes, -(-args.rounds//3), device), against='reference, 16', n=32, unit='ms')


if __name__ == '__main__': main()
