"""Run other methods, as anomalib has them, on the same images and by the same metrics: one model for all products, as the paper did.

    pip install -e '.[compare]'                          in an environment of its own: anomalib brings much with it
    python benchmarks/peers.py padim patchcore dfm       lines of runs.jsonl, as benchmarks/tables.py writes them
    python benchmarks/peers.py --check                   every peer with random weights, two steps: is it wired? Seconds go into peers_check.json

PaDiM, PatchCore, DFM and SuperSimpleNet take the backbone of the recipe with its weights. (SuperSimpleNet is the successor of the
paper's SimpleNet: its noise is shaped by Perlin masks, its features are enlarged, and it has a second head for the image; near, but not
the same.) CFA and CS-Flow are tied to torchvision's networks and DRAEM trains two networks from scratch: their weights come from a hub,
or their training takes a GPU. Where weights are missing the run ends with a message, and the row stays blank.
"""
import argparse, importlib, json, shutil, tempfile, time
from contextlib import ExitStack, contextmanager
from pathlib import Path
from types import SimpleNamespace
from unittest.mock import patch

import numpy as np
import pandas as pd
import timm
import torch
from torch import nn

from onenip.all import *
from onenip.evaluation import _truth
from onenip.training import is_fast_at_bfloat16
from tables import OUT, Store, data_sets, few

MISSING = "anomalib is missing: pip install -e '.[compare]', best in an environment of its own"
SIZE = 224
LITE = dict(backbone='tf_efficientnet_lite0')
PEERS = { # name → class in anomalib, arguments, needs weights from a hub
    'padim': ('Padim', dict(**LITE, layers=[1, 2, 3], n_features=100, pre_trained=False), False),
    'patchcore': ('Patchcore', dict(**LITE, layers=[2, 3], pre_trained=False, coreset_sampling_ratio=.002), False),
    'dfm': ('Dfm', dict(**LITE, layer=3, pre_trained=False), False),
    'supersimplenet': ('Supersimplenet', dict(**LITE, layers=[2, 3]), False),
    'cfa': ('Cfa', dict(backbone='resnet18'), True),
    'csflow': ('Csflow', {}, True),
    'draem': ('Draem', {}, False)}
GRADIENTS = {'supersimplenet', 'cfa', 'csflow', 'draem'} # the others look at each image once
CHECKED = Path(OUT).parent/'peers_check.json'
NOISE = .015 # SuperSimpleNet's deviation of the noise that it learns to find, as anomalib has it


def models():
    "anomalib's models, and Lightning"
    try: return importlib.import_module('anomalib.models'), importlib.import_module('lightning.pytorch')
    except ModuleNotFoundError as e: raise SystemExit(f'{MISSING} ({e})') from e


@contextmanager
def without_hub():
    "Networks are made with random weights"
    import torchvision
    make = timm.create_model
    with ExitStack() as stack:
        stack.enter_context(patch('timm.create_model', lambda *a, **kw: make(*a, **{**kw, 'pretrained': False})))
        stack.enter_context(patch.object(torchvision.models._api.WeightsEnum, 'get_state_dict', lambda *a, **kw: {}))
        stack.enter_context(patch.object(nn.Module, 'load_state_dict', lambda *a, **kw: None))
        yield


def same_weights(model, backbone):
    "Give every timm network in `model` the weights of `backbone`"
    state = backbone.net.state_dict()                                # up to stride 16; what lies behind is not used
    nets = [m for m in model.modules() if hasattr(m, 'feature_info') and 'conv_stem.weight' in m.state_dict()]
    for net in nets:
        lacking = net.load_state_dict(state, strict=False)
        if lacking.unexpected_keys: raise ValueError(f'{backbone.name}: {lacking.unexpected_keys[0]} has no place in the peer')
    return len(nets)


def make(name, backbone, random=False, noise=NOISE): # random: with random weights
    "The peer `name`, with the weights of `backbone` where it can take them"
    zoo, _ = models()
    kind, kw, hub = PEERS[name]
    if hub and not random:
        print(f"{name}: its backbone is torchvision's, with weights from a hub; they are fetched if the network allows")
    ours = kw.get('backbone') == backbone.name
    pre = importlib.import_module('anomalib.pre_processing').PreProcessor(_transform(name, backbone if ours else None))
    if name == 'draem': kw = dict(dtd_dir=_textures())
    with (without_hub() if random or not hub else ExitStack()):
        model = getattr(zoo, kind)(**kw, pre_processor=pre, post_processor=False, evaluator=False, visualizer=False)
    if not random and ours and not same_weights(model, backbone): raise ValueError(f'{name}: no network of {backbone.name} in it')
    if name == 'supersimplenet': model.model.anomaly_generator.noise_std = noise
    return model


def _transform(name, backbone):
    "Resize and normalise: as `backbone` wants it, or as ImageNet's usual networks do"
    from torchvision.transforms import v2
    resize = v2.Resize((256, 256) if name == 'csflow' else (SIZE, SIZE), antialias=True)         # CS-Flow halves its grid twice
    if name == 'draem': return resize                                # it wants raw pixels
    mean, std = ([.485, .456, .406], [.229, .224, .225]) if backbone is None else (list(backbone.mean), list(backbone.std))
    return v2.Compose([resize, v2.Normalize(mean, std)])


def _textures():
    "A folder with scikit-image's textures, in the place of DTD"
    folder = Path(tempfile.mkdtemp())/'textures'
    folder.mkdir()
    for f in Textures().files: shutil.copy(f, folder)
    return folder


def loader(samples, bs, shuffle):
    "Batches as anomalib reads them"
    data = importlib.import_module('anomalib.data')
    def collate(own):
        pixels = torch.from_numpy(np.stack([load_image(s, SIZE) for s in own])).permute(0, 3, 1, 2).contiguous().float()/255
        return data.ImageBatch(image=pixels, gt_label=torch.tensor([s.label for s in own]), gt_mask=torch.zeros(len(own), SIZE, SIZE, dtype=torch.bool))
    return torch.utils.data.DataLoader(list(samples), bs, shuffle=shuffle, collate_fn=collate)


def fit(model, name, samples, steps, bs):
    "Train `model` on all normal images"
    _, lightning = models()
    module = lightning.LightningDataModule()
    module.train_dataloader = lambda: loader(normals(samples), bs, shuffle=True)
    length = dict(max_steps=steps, max_epochs=-(-steps//len(module.train_dataloader()))) if name in GRADIENTS else dict(max_epochs=1)
    device = torch.device('cuda' if torch.cuda.is_available() else 'cpu')
    with tempfile.TemporaryDirectory() as folder:
        trainer = lightning.Trainer(**length, logger=False, enable_checkpointing=False, enable_progress_bar=False, enable_model_summary=False,
                                    num_sanity_val_steps=0, default_root_dir=folder, accelerator='auto', devices=1,
                                    precision='bf16-mixed' if name in GRADIENTS and is_fast_at_bfloat16(device) else '32-true')
        trainer.fit(model, datamodule=module)
    return model.eval().cpu()


@torch.no_grad()
def judge(model, samples, bs=8):
    "Image scores (n,) and anomaly maps (n size size); maps None where the method has none"
    scores, maps = [], []
    for batch in loader(samples, bs, shuffle=False):
        out = model.model(model.pre_processor.transform(batch.image))
        scores.append(out.pred_score.flatten()); maps.append(out.anomaly_map)
    enlarge = lambda m: nn.functional.interpolate(m.reshape(len(m), 1, *m.shape[-2:]).float(), (SIZE, SIZE), mode='bilinear')[:, 0]
    return torch.cat(scores).numpy(), None if maps[0] is None else torch.cat([enlarge(m) for m in maps])


def table(samples, scores, maps):
    "What `Store.add` asks for"
    frame = pd.DataFrame([dict(image=s.name, product=s.product, label=s.label, defect=s.defect, prompt='', similarity=np.nan, image_score=v)
                          for s, v in zip(samples, scores)])
    rows = {}
    for product, places in frame.groupby('product').groups.items():
        masks = {i: m for i in places if maps is not None and (m := _truth(samples[i], SIZE)) is not None}
        pixels = (maps[list(masks)].numpy(), np.stack(list(masks.values()))) if any(m.any() for m in masks.values()) else ()
        rows[product] = metrics(frame.image_score[places], frame.label[places], *pixels)
    return SimpleNamespace(rows=rows, scores=frame, samples=samples, settings=dict(size=SIZE, protocol=dict(name='deployable')),
                           maps=lambda places: dict(anomaly_map=maps[places].numpy()))


def run(name, store, on, samples, seed, steps, bs, random=False, noise=NOISE):
    "Train and judge one peer; seconds of training"
    torch.manual_seed(seed)
    backbone = Backbone(LITE['backbone'])
    model, start = make(name, backbone, random, noise), time.time()
    model = fit(model, name, samples, steps, bs)
    seconds, test = round(time.time()-start, 1), L(by_product([s for s in samples if s.split == 'test']).values()).concat()
    done = table(test, *judge(model, test))
    taken = steps if name in GRADIENTS else 0
    called = f'{name} noise {noise:g}' if name == 'supersimplenet' and noise != NOISE else name
    store.add(done, on=on, name=called, seed=seed, steps=taken, recipe=None, random_weights=random, images_seen=taken*bs or len(normals(samples)), seconds=seconds,
              threads=torch.get_num_threads(), noise=noise if name == 'supersimplenet' else None, backbone=PEERS[name][1].get('backbone', 'its own'))
    print(name, seconds, 's', {p: {k: round(v, 3) for k, v in row.items()} for p, row in done.rows.items()}, flush=True)
    return seconds


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument('peers', nargs='*', choices=[*PEERS, []])
    parser.add_argument('--data', nargs='+', default=['tiles'])
    parser.add_argument('--steps', type=int, default=150, help='of the peers that train')
    parser.add_argument('--bs', type=int, default=8)
    parser.add_argument('--seeds', type=int, nargs='+', default=[0])
    parser.add_argument('--noise', type=float, default=NOISE, help="of SuperSimpleNet, in the units of the backbone's features")
    parser.add_argument('--out', default=OUT)
    parser.add_argument('--check', action='store_true', help='random weights, a few hazelnuts, two steps; nothing is kept')
    args = parser.parse_args()
    with tempfile.TemporaryDirectory() as scratch:
        on, sets = data_sets(['hazelnut'] if args.check else args.data)
        samples, store = L(sets.values()).concat(), Store(scratch if args.check else args.out)
        if args.check: samples = normals(samples)[:6] + [s for s in few(samples, 2) if s.split == 'test']
        steps, bs = (2, 2) if args.check else (args.steps, args.bs)
        seconds = {name: [run(name, store, on, samples, seed, steps, bs, args.check, args.noise) for seed in args.seeds] for name in args.peers or PEERS}
        if args.check: CHECKED.write_text(json.dumps({name: dict(steps=steps, bs=bs, seconds=s[0], trains=name in GRADIENTS) for name, s in seconds.items()}, indent=1)+'\n')


if __name__ == '__main__': main()
