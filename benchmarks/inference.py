"""How fast is a detector, against a plain reference with the same weights?

    OMP_NUM_THREADS=1 python benchmarks/inference.py paper      # or quick; needs pip install 'onenip[onnx]'

The reference is the method as one writes it down first: the prompt image goes through backbone and encoder with every image, the backbone
is not cut behind its last used stage, attention is torch's nn.MultiheadAttention, the mask is built in every forward. It is told
the product. Results must agree before anything is timed. All candidates take turns in one process, so that other load on the machine
meets all of them; medians and their ratios are printed. Weights are random where none are installed: that changes no duration.
"""
import argparse, tempfile, time
from pathlib import Path

import numpy as np
import timm
import torch
import torch.nn.functional as F
from torch import nn

from onenip.all import *

MODELS = dict(paper=('tf_efficientnet_b4', dict()), quick=('tf_efficientnet_lite0', dict(encoder_layers=1, decoder_layers=1)))


class EncoderLayer(nn.Module):
    def __init__(self):
        super().__init__()
        self.self_attn = nn.MultiheadAttention(256, 8, .1, batch_first=True)
        self.linear1, self.linear2 = nn.Linear(256, 1024), nn.Linear(1024, 256)
        self.norm1, self.norm2 = nn.LayerNorm(256), nn.LayerNorm(256)

    def forward(self, x, pos, mask):
        x = self.norm1(x + self.self_attn(x+pos, x+pos, x, attn_mask=mask)[0])
        return self.norm2(x + self.linear2(F.relu(self.linear1(x))))


class DecoderLayer(nn.Module):
    def __init__(self):
        super().__init__()
        self.prompt_to_image = nn.MultiheadAttention(256, 8, .1, batch_first=True)
        self.image_to_prompt = nn.MultiheadAttention(256, 8, .1, batch_first=True)
        self.mlp = nn.ModuleDict(dict(lin1=nn.Linear(256, 1024), lin2=nn.Linear(1024, 256)))
        self.norm1, self.norm2, self.norm3 = (nn.LayerNorm(256) for _ in range(3))

    def forward(self, p, f, pos, mask):
        p = self.norm1(p + self.prompt_to_image(p+pos, f+pos, f, attn_mask=mask)[0])
        p = self.norm2(p + self.mlp['lin2'](F.relu(self.mlp['lin1'](p))))
        return p, self.norm3(f + self.image_to_prompt(f+pos, p+pos, p, attn_mask=mask)[0])


class Head(nn.Module):
    "Encoder, bidirectional decoder and refiner; names of the parameters as in `OneNIP`"
    def __init__(self, channels, grid, encoder_layers=4, decoder_layers=4):
        super().__init__()
        self.grid = grid
        self.pos = nn.ParameterDict(dict(row=torch.zeros(grid, 128), column=torch.zeros(grid, 128)))
        self.encoder = nn.ModuleDict(dict(layers=nn.ModuleList(EncoderLayer() for _ in range(encoder_layers))))
        self.decoder = nn.ModuleDict(dict(layers=nn.ModuleList(DecoderLayer() for _ in range(decoder_layers)),
                                          final_attn=nn.MultiheadAttention(256, 8, .1, batch_first=True), norm=nn.LayerNorm(256)))
        self.input_proj, self.output_proj = nn.Linear(channels, 256), nn.Linear(256, channels)
        up = lambda ni: nn.Sequential(nn.Conv2d(ni, 128, 3, padding=1, bias=False), nn.BatchNorm2d(128), nn.ReLU(), nn.ConvTranspose2d(128, 128, 2, 2))
        self.refiner = nn.ModuleDict(dict(upconv1=up(channels), upconv2=up(128), predictor=nn.Conv2d(128, 1, 1)))

    def mask(self):
        g, w = self.grid, (self.grid//2 | 1)//2
        mask = torch.zeros(g, g, g, g)
        for y in range(g):
            for x in range(g): mask[y, x, max(y-w, 0):y+w+1, max(x-w, 0):x+w+1] = -torch.inf
        return mask.view(g*g, g*g)

    def encode(self, feats, pos, mask):
        x = self.input_proj(feats.flatten(2).transpose(1, 2))
        for layer in self.encoder['layers']: x = layer(x, pos, mask)
        return x

    def forward(self, feats, prompts):
        g, mask = self.grid, self.mask()
        pos = torch.cat([self.pos['column'][None].expand(g, g, -1), self.pos['row'][:, None].expand(g, g, -1)], -1).flatten(0, 1)
        f, p = self.encode(feats, pos, mask), self.encode(prompts, pos, mask)
        for layer in self.decoder['layers']: p, f = layer(p, f, pos, mask)
        p = self.decoder['norm'](p + self.decoder['final_attn'](p+pos, f+pos, f)[0])
        restored = self.output_proj(p).transpose(1, 2).unflatten(2, (g, g))
        logits = self.refiner['predictor'](self.refiner['upconv2'](self.refiner['upconv1']((restored-feats).abs())))
        return restored, F.interpolate(logits, (16*g, 16*g), mode='bilinear', align_corners=True)


class Reference:
    "The whole detector, written plainly, with the weights of `detector`"
    def __init__(self, detector):
        b, self.detector = detector.backbone, detector
        self.net = timm.create_model(b.name, pretrained=False, features_only=True).eval()
        self.net.load_state_dict(b.net.state_dict(), strict=False)                    # behind the cut: random, and not used
        layers = {k: detector.model.config[k] for k in ('encoder_layers', 'decoder_layers')}
        self.head = Head(b.channels, b.grid, **layers).eval()
        self.head.load_state_dict(detector.model.state_dict())

    def features(self, pixels):
        b = self.detector.backbone
        x = torch.from_numpy(pixels).permute(0, 3, 1, 2).float()/255
        x = (x-torch.tensor(b.mean).view(3, 1, 1))/torch.tensor(b.std).view(3, 1, 1)
        stages = [F.interpolate(f, (b.grid, b.grid), mode='bilinear', align_corners=True) for f in self.net(x)[:4]]
        return self.detector.norm(torch.cat(stages, 1))

    @torch.no_grad()
    def __call__(self, files, product):
        d, size = self.detector, self.detector.backbone.size
        pixels = np.stack([load_image(f, size) for f in files])
        prompts = np.stack([d.pool[product].image]*len(files))
        feats, prompt_feats = self.features(pixels), self.features(prompts)
        restored, logits = self.head(feats, prompt_feats)
        residual = F.interpolate((restored-feats).norm(dim=1, keepdim=True), (size, size), mode='bilinear', align_corners=True)
        maps = (1-d.alpha)*residual + d.alpha*d.scale*logits.sigmoid()
        return F.avg_pool2d(maps, d.score_pool, stride=1).flatten(1).amax(1).numpy(), maps[:, 0].numpy()


def make_detector(kind, size=224):
    "A detector of hazelnuts with untrained weights"
    torch.manual_seed(0)
    name, layers = MODELS[kind]
    normal = normals(hazelnut())
    backbone = Backbone(name, size, pretrained='lite0' in name)
    norm = FeatureNorm.fit(backbone.encode(normal))
    pool = PromptPool(normal, backbone, norm=norm)
    return Detector(backbone, norm, OneNIP(backbone.channels, size//16, **layers), pool, scale=1., score_pool=16)


def medians(candidates, rounds):
    "Median seconds of each candidate, taking turns"
    times = {name: [] for name in candidates}
    for _ in range(rounds+1):
        for name, f in candidates.items():
            start = time.perf_counter()
            f()
            times[name].append(time.perf_counter()-start)
    return {name: np.median(ts[1:]) for name, ts in times.items()}                   # the first round warms up


def check_agreement(reference, detector, onnx, files):
    "Raise unless scores and maps are the same"
    scores, maps = reference(files, 'hazelnut')
    for other in (detector, onnx):
        found = other.predict(files)
        np.testing.assert_allclose(found.attrgot('image_score'), scores, rtol=1e-4)
        np.testing.assert_allclose(np.stack(found.attrgot('anomaly_map')), maps, rtol=1e-4, atol=1e-4*maps.max())


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument('model', choices=MODELS)
    parser.add_argument('--threads', type=int, nargs='+', default=[1])
    parser.add_argument('--rounds', type=int, default=9)
    args = parser.parse_args()
    detector = make_detector(args.model)
    reference = Reference(detector)
    files = [s.image for s in hazelnut().filter(lambda s: s.split == 'test')]
    files = (files*3)[:64]
    with tempfile.TemporaryDirectory() as folder:
        path = detector.export_onnx(Path(folder)/'model.onnx')
        for threads in args.threads:
            torch.set_num_threads(threads)
            onnx = OnnxDetector(path, threads=threads)
            check_agreement(reference, detector, onnx, files[:4])
            one = dict(reference=lambda: reference(files[:1], 'hazelnut'), predict=lambda: detector.predict(files[0]), onnx=lambda: onnx.predict(files[0]))
            many = dict(reference=lambda: [reference(files[i:i+16], 'hazelnut') for i in range(0, len(files), 16)],
                        predict=lambda: detector.predict(files), onnx=lambda: onnx.predict(files))
            for title, candidates, n, rounds in ('one image', one, 1, 3*args.rounds), ('batches of 16', many, len(files), -(-args.rounds//2)):
                t = medians(candidates, rounds)
                print(f'{args.model}, {threads} threads, {title}:', ', '.join(f'{k} {v/n*1e3:.1f} ms an image ({t["reference"]/v:.2f} times)' for k, v in t.items()), flush=True)


if __name__ == '__main__': main()
