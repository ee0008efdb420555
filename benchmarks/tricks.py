"What no recipe has, for `search.py --trick`: layers with the norm first, a jitter that falls, an optimiser without a schedule"
from contextlib import contextmanager
from functools import partial
from unittest.mock import patch

import torch.nn.functional as F
from fastai.callback.core import Callback

import onenip.training
from onenip.all import *


def encoder_norm_first(self, x, pos, mask=None):
    h = self.norm1(x)
    x = x+self.dropout(self.self_attn(h, h, pos, mask))
    return x+self.dropout(self.linear2(self.dropout(F.relu(self.linear1(self.norm2(x))))))


def exchange_norm_first(self, p, f, pos, mask=None):
    "Of `BidirectionalLayer`, version 2"
    h = self.norm3(f)
    p = p+self.dropout(self.prompt_to_image(self.norm1(p), h, pos, mask))
    p = p+self.dropout(self.mlp(self.norm2(p)))
    return p, f+self.dropout(self.image_to_prompt(h, p, pos, mask))


class JitterFalls(Callback):
    "Twice the recipe's jitter at first, none at the end"
    def before_fit(self): self.whole = self.model.jitter
    def before_batch(self): self.model.jitter = 2*self.whole*(1-self.pct_train)
    def after_fit(self): self.model.jitter = self.whole


class ScheduleFree(Callback):
    "Training needs one set of weights, judging their mean"
    def before_fit(self): self.learn.opt.opt.train()
    def after_fit(self): self.learn.opt.opt.eval()


@contextmanager
def norm_first():
    with patch.object(EncoderLayer, 'forward', encoder_norm_first), patch.object(BidirectionalLayer, 'forward', exchange_norm_first): yield []


@contextmanager
def jitter_falls(): yield [JitterFalls()]


@contextmanager
def schedule_free():
    "Needs `pip install schedulefree`, and `optimiser=adamw drop=1.` for a constant learning rate"
    from schedulefree import AdamWScheduleFree
    opt = lambda model, preset: partial(AdamWScheduleFree, betas=(.9, .999), eps=1e-8, weight_decay=preset.wd)
    with patch.object(onenip.training, 'make_optimiser', opt): yield [ScheduleFree()]


tricks = dict(norm_first=norm_first, jitter_falls=jitter_falls, schedule_free=schedule_free)
