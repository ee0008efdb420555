"""The reference that the benchmarks compare with: the method as one writes it down first.

Attention is torch's nn.MultiheadAttention as it is called when nothing is said, so it returns its weights, which the release does not use either; `need_weights=False`
takes torch's fused attention instead. The prompt is encoded with every target, the mask is built in every forward pass, the backbone is not cut behind its last used stage.
Parameters have the names of `OneNIP`, so both can have the same weights.
"""
import timm
import torch
import torch.nn.functional as F
from torch import nn


class EncoderLayer(nn.Module):
    def __init__(self, dropout, need_weights):
        super().__init__()
        self.how = dict(need_weights=need_weights)
        self.self_attn = nn.MultiheadAttention(256, 8, dropout, batch_first=True)
        self.linear1, self.linear2 = nn.Linear(256, 1024), nn.Linear(1024, 256)
        self.norm1, self.norm2, self.drop = nn.LayerNorm(256), nn.LayerNorm(256), nn.Dropout(dropout)

    def forward(self, x, pos, mask):
        x = self.norm1(x + self.drop(self.self_attn(x+pos, x+pos, x, attn_mask=mask, **self.how)[0]))
        return self.norm2(x + self.drop(self.linear2(self.drop(F.relu(self.linear1(x))))))


class DecoderLayer(nn.Module):
    def __init__(self, dropout, need_weights):
        super().__init__()
        self.how = dict(need_weights=need_weights)
        self.prompt_to_image = nn.MultiheadAttention(256, 8, dropout, batch_first=True)
        self.image_to_prompt = nn.MultiheadAttention(256, 8, dropout, batch_first=True)
        self.mlp = nn.ModuleDict(dict(lin1=nn.Linear(256, 1024), lin2=nn.Linear(1024, 256)))
        self.norm1, self.norm2, self.norm3 = (nn.LayerNorm(256) for _ in range(3))
        self.drop = nn.Dropout(dropout)

    def forward(self, p, f, pos, mask):
        p = self.norm1(p + self.drop(self.prompt_to_image(p+pos, f+pos, f, attn_mask=mask, **self.how)[0]))
        p = self.norm2(p + self.drop(self.mlp['lin2'](F.relu(self.mlp['lin1'](p)))))
        return p, self.norm3(f + self.drop(self.image_to_prompt(f+pos, p+pos, p, attn_mask=mask, **self.how)[0]))


class Head(nn.Module):
    "Encoder, bidirectional decoder and refiner"
    def __init__(self, channels, grid, encoder_layers=4, decoder_layers=4, dropout=.1, jitter=20., need_weights=True):
        super().__init__()
        self.grid, self.jitter, self.how = grid, jitter, dict(need_weights=need_weights)
        self.pos = nn.ParameterDict(dict(row=torch.zeros(grid, 128), column=torch.zeros(grid, 128)))
        self.encoder = nn.ModuleDict(dict(layers=nn.ModuleList(EncoderLayer(dropout, need_weights) for _ in range(encoder_layers))))
        self.decoder = nn.ModuleDict(dict(layers=nn.ModuleList(DecoderLayer(dropout, need_weights) for _ in range(decoder_layers)), norm=nn.LayerNorm(256),
                                          final_attn=nn.MultiheadAttention(256, 8, dropout, batch_first=True)))
        self.drop = nn.Dropout(dropout)
        self.input_proj, self.output_proj = nn.Linear(channels, 256), nn.Linear(256, channels)
        up = lambda ni: nn.Sequential(nn.Conv2d(ni, 128, 3, padding=1, bias=False), nn.BatchNorm2d(128), nn.ReLU(), nn.ConvTranspose2d(128, 128, 2, 2))
        self.refiner = nn.ModuleDict(dict(upconv1=up(channels), upconv2=up(128), predictor=nn.Conv2d(128, 1, 1)))

    def mask(self, device):
        g, w = self.grid, (self.grid//2 | 1)//2
        mask = torch.zeros(g, g, g, g)
        for y in range(g):
            for x in range(g): mask[y, x, max(y-w, 0):y+w+1, max(x-w, 0):x+w+1] = -torch.inf
        return mask.view(g*g, g*g).to(device)

    def encode(self, feats, pos, mask):
        x = feats.flatten(2).transpose(1, 2)
        if self.training: x = x + torch.randn_like(x)*x.norm(dim=-1, keepdim=True)/x.shape[-1]*self.jitter
        x = self.input_proj(x)
        for layer in self.encoder['layers']: x = layer(x, pos, mask)
        return x

    def forward(self, feats, prompts):
        "`feats` (b c g g), `prompts` as many, or half as many for both streams"
        g, mask = self.grid, self.mask(feats.device)
        pos = torch.cat([self.pos['column'][None].expand(g, g, -1), self.pos['row'][:, None].expand(g, g, -1)], -1).flatten(0, 1)
        f, p = self.encode(feats, pos, mask), self.encode(prompts, pos, mask)
        p = p.repeat(len(f)//len(p), 1, 1)
        for layer in self.decoder['layers']: p, f = layer(p, f, pos, mask)
        p = self.decoder['norm'](p + self.drop(self.decoder['final_attn'](p+pos, f+pos, f, **self.how)[0]))
        restored = self.output_proj(p).transpose(1, 2).unflatten(2, (g, g))
        logits = self.refiner['predictor'](self.refiner['upconv2'](self.refiner['upconv1']((restored-feats).abs())))
        return restored, F.interpolate(logits, (16*g, 16*g), mode='bilinear', align_corners=True)


def loss(restored, logits, feats, masks):
    "Eq. 8: `restored` and `logits` of both streams, normal `feats` (b c g g), `masks` of the pseudo-anomalies (b 1 s s)"
    rec, res = ((r-feats).square().mean() for r in restored.chunk(2))
    p, m = logits.sigmoid().flatten(1), torch.cat([torch.zeros_like(masks), masks]).flatten(1)
    dice = 1-(2*(p*m).sum(1)+1)/((p*p).sum(1)+(m*m).sum(1)+1)
    return rec + res + .5*dice.mean()


def optimiser(head): return torch.optim.AdamW(head.parameters(), lr=1e-4, betas=(.9, .999), weight_decay=1e-4)


def step(head, opt, feats, pseudo, prompts, masks):
    "One step of training on features"
    opt.zero_grad()
    value = loss(*head(torch.cat([feats, pseudo]), prompts), feats, masks)
    value.backward()
    torch.nn.utils.clip_grad_norm_(head.parameters(), .1)
    opt.step()
    return value.item()


class Features(nn.Module):
    "All of timm's network, as far as `features_only` goes, and the resized stages at strides 2 to 16"
    def __init__(self, backbone, norm):
        super().__init__()
        self.net = timm.create_model(backbone.name, pretrained=False, features_only=True).eval()
        self.net.load_state_dict(backbone.net.state_dict(), strict=False)                # behind the cut: random, and not used
        self.mean, self.std, self.grid, self.norm = backbone.mean, backbone.std, backbone.grid, norm

    @torch.no_grad()
    def forward(self, pixels): # uint8 (b h w 3)
        x = torch.as_tensor(pixels, device=self.norm.mean.device).permute(0, 3, 1, 2).float()/255
        mean, std = (torch.tensor(v, device=x.device).view(3, 1, 1) for v in (self.mean, self.std))
        stages = [F.interpolate(f, (self.grid, self.grid), mode='bilinear', align_corners=True) for f in self.net((x-mean)/std)[:4]]
        return self.norm(torch.cat(stages, 1))
