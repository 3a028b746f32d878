"""Attention as networks write it, on (B, 8, 8, 8) pictures, with the pictures' axis moved or laid together with another."""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor, nn
from torch.nn import functional as F

HEADS, SIZE = 2, 4


class Projected(nn.Module):
    """The projections of queries, keys and values, and of their result."""

    def __init__(self) -> None:
        super().__init__()
        self.qkv, self.proj = nn.Linear(8, 24), nn.Linear(8, 8)
        self.bias = nn.Parameter(torch.randn(HEADS, 16, 16))


class Timm(Projected):
    """The three parts are the first axis."""

    def forward(self, x: Tensor) -> Tensor:
        x = x.flatten(2).transpose(1, 2)
        count, places, channels = x.shape
        q, k, v = self.qkv(x).reshape(count, places, 3, HEADS, SIZE).permute(2, 0, 3, 1, 4).unbind(0)
        shares = ((q * SIZE**-0.5) @ k.transpose(-2, -1)).softmax(dim=-1)
        return self.proj((shares @ v).transpose(1, 2).reshape(count, places, channels))


class Windows(Projected):
    """Windows of 4 x 4 places are laid beside the pictures, as in Swin and MaxViT."""

    def forward(self, x: Tensor) -> Tensor:
        count, channels, rows, columns = x.shape
        x = x.view(count, channels, rows // 4, 4, columns // 4, 4).permute(0, 2, 4, 3, 5, 1).reshape(-1, 16, channels)
        qkv = self.qkv(x).reshape(x.shape[0], 16, 3, HEADS, SIZE).permute(2, 0, 3, 1, 4)
        q, k, v = qkv[0], qkv[1], qkv[2]
        shares = (q @ k.transpose(-2, -1) + self.bias.unsqueeze(0)).softmax(-1)
        x = self.proj((shares @ v).transpose(1, 2).reshape(-1, 16, channels))
        x = x.view(count, rows // 4, columns // 4, 4, 4, channels)
        return x.permute(0, 5, 1, 3, 2, 4).reshape(count, channels, rows, columns)


class Torch(nn.Module):
    """nn.MultiheadAttention, with the pictures in front or behind the places."""

    def __init__(self, batch_first: bool, weights: bool) -> None:
        super().__init__()
        self.inner, self.weights = nn.MultiheadAttention(8, HEADS, batch_first=batch_first), weights

    def forward(self, x: Tensor) -> Tensor:
        x = x.flatten(2).permute((0, 2, 1) if self.inner.batch_first else (2, 0, 1))
        x, _ = self.inner(x, x, x, need_weights=self.weights)
        return x if self.inner.batch_first else x.transpose(0, 1)


class Pooled(nn.Module):
    """CLIP's pool: the query is the mean, and positions are added to (places, B, channels)."""

    def __init__(self) -> None:
        super().__init__()
        self.inner, self.places = nn.MultiheadAttention(8, HEADS), nn.Parameter(torch.randn(65, 8))

    def forward(self, x: Tensor) -> Tensor:
        x = x.flatten(2).permute(2, 0, 1)
        x = torch.cat([x.mean(dim=0, keepdim=True), x]) + self.places[:, None]
        return self.inner(x[:1], x, x, need_weights=False)[0].squeeze(0)


class Encoder(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.inner = nn.TransformerEncoder(nn.TransformerEncoderLayer(8, HEADS, 16), 2, enable_nested_tensor=False)

    def forward(self, x: Tensor) -> Tensor:
        return self.inner(x.flatten(2).permute(2, 0, 1)).mean(0)


class Normed(nn.Module):
    """LeViT's linear layers: a batch norm of all places of all pictures (Graham et al., arXiv 2104.01136, section 3)."""

    def __init__(self) -> None:
        super().__init__()
        self.linear, self.norm = nn.Linear(8, 6, bias=False), nn.BatchNorm1d(6)

    def forward(self, x: Tensor) -> Tensor:
        x = self.linear(x.flatten(2).transpose(1, 2))
        return self.norm(x.flatten(0, 1)).reshape_as(x)


ATTENTIONS: dict[str, Callable[[], nn.Module]] = {
    "timm": Timm, "normed": Normed, "windows": Windows, "pooled": Pooled, "encoder": Encoder,
    "torch": lambda: Torch(True, False), "torch-weights": lambda: Torch(True, True), "torch-behind": lambda: Torch(False, False),
}  # fmt: skip


def moved(x: Tensor) -> Tensor:
    """Return (8 places, B, 8, 8)."""
    return x.permute(2, 0, 1, 3)


def laid(x: Tensor) -> Tensor:
    """Return (2 B, 4, 8, 8), with two halves of the channels for each picture."""
    return x.reshape(-1, 4, 8, 8)


def between(x: Tensor) -> Tensor:
    """Return (8, 2 B 4, 8): the axis of the pictures is laid between two others, and another is in front."""
    return x.reshape(-1, 2, 4, 8, 8).permute(3, 1, 0, 2, 4).reshape(8, -1, 8)


def back(x: Tensor) -> Tensor:
    """Return what `between` got."""
    return x.reshape(8, 2, -1, 4, 8).permute(2, 1, 3, 0, 4).reshape(-1, 8, 8, 8)


CALLS: dict[str, Callable[[nn.Module, Tensor], Tensor]] = {
    "add": lambda s, x: back(between(x) + between(x.abs()) * 2),
    "add a row": lambda s, x: back(between(x) + s.row),
    "add a map": lambda s, x: back(between(x) + s.map[:, None]),
    "add a map behind": lambda s, x: laid(x).add(s.all[:, 4:]).reshape(-1, 8, 8, 8),
    "functions": lambda s, x: back(F.hardswish(between(x)).neg().clamp(-1, 0.5).sigmoid()),
    "rms norm": lambda s, x: F.rms_norm(laid(x), (8, 8), s.map).reshape(-1, 8, 8, 8),
    "pad": lambda s, x: F.pad(laid(x), (1, 2, 0, 3)).reshape(-1, 8, 11, 11),
    "modules": lambda s, x: back(F.gelu(F.relu(between(x)) - 0.5)),
    "dropout": lambda s, x: back(F.dropout(between(x).contiguous(), 0.5, False)),
    "double": lambda s, x: back(between(x).double().float()),
    "select": lambda s, x: moved(x)[3], "select behind": lambda s, x: moved(x)[:, :, 2].transpose(0, 1),
    "select the last": lambda s, x: moved(x).select(-1, -2).transpose(0, 1),
    "unbind": lambda s, x: moved(x).unbind(0)[2] - moved(x).unbind(-1)[7].transpose(0, 1),
    "slice": lambda s, x: moved(x)[1:7:2, :, 3:].transpose(0, 1), "narrow": lambda s, x: moved(x).narrow(-1, 2, 3).transpose(0, 1),
    "chunk": lambda s, x: moved(x).chunk(3, 0)[2].transpose(0, 1), "split": lambda s, x: moved(x).split([1, 5, 2], 2)[1].transpose(0, 1),
    "split in equal parts": lambda s, x: moved(x).split(3, -1)[2].transpose(0, 1),
    "split apart": lambda s, x: torch.unsafe_split(moved(x), 3, -1)[2].transpose(0, 1),
    "cat": lambda s, x: torch.cat([moved(x), -moved(x)], -1).transpose(0, 1), "cat in front": lambda s, x: torch.cat([moved(x), moved(x).abs()]).transpose(0, 1),
    "stack": lambda s, x: torch.stack([x, -x, 2 * x]).sum(0), "stack behind": lambda s, x: torch.stack([moved(x), -moved(x)], -2).mean(0),
    "stack at the pictures": lambda s, x: torch.stack([between(x), -between(x)], 1)[:, 1].reshape(8, 2, -1, 4, 8).amax((0, 1)),
    "stack laid": lambda s, x: torch.stack([laid(x), laid(x) ** 2], 1).flatten(0, 1).reshape(-1, 2, 2, 4, 8, 8)[:, :, 1],
    "mean": lambda s, x: moved(x).mean(0), "mean of two": lambda s, x: moved(x).mean((0, -1)), "sum": lambda s, x: moved(x).sum(2).transpose(0, 1),
    "mean that keeps": lambda s, x: (moved(x) - moved(x).mean((0, 3), keepdim=True)).transpose(0, 1),
    "amin": lambda s, x: laid(x).amin(1).reshape(-1, 2, 8, 8), "normalize": lambda s, x: F.normalize(moved(x), dim=0).transpose(0, 1),
    "softmax": lambda s, x: moved(x).softmax(0).transpose(0, 1), "log_softmax": lambda s, x: back(between(x).log_softmax(-1)),
    "layer_norm": lambda s, x: F.layer_norm(moved(x), (8, 8), s.map).transpose(0, 1), "linear": lambda s, x: F.linear(moved(x), s.map.tanh(), s.row).mean(0),
    "matmul": lambda s, x: (laid(x) @ laid(x).transpose(2, 3)).reshape(-1, 8, 8, 8), "matmul by a map": lambda s, x: (laid(x) @ s.map).reshape(-1, 8, 8, 8),
    "matmul of rows": lambda s, x: (moved(x)[..., 0] @ s.map).transpose(0, 1),
    "expand": lambda s, x: moved(x).mean(3, keepdim=True).expand(-1, -1, -1, 5).transpose(0, 1),
    "a held factor": lambda s, x: (x.reshape(-1, 8, 4, 4, 4).permute(2, 3, 0, 1, 4) @ s.all.reshape(4, 2, 1, 8, 8)[:, :1, :, :4].reshape(4, 1, 1, 4, 8)).sum((0, 1)),
    "a held factor in front": lambda s, x: (s.all.reshape(8, 1, 8, 8) @ moved(x)).transpose(0, 1),
    "a held factor of three axes": lambda s, x: (moved(x) @ s.map.reshape(1, 8, 8)).transpose(0, 1),
    "held keys": lambda s, x: F.scaled_dot_product_attention(moved(x), s.all.reshape(8, 1, 8, 8), s.all.tanh().reshape(8, 1, 8, 8)).transpose(0, 1),
    "a held tensor expanded": lambda s, x: (y := x.permute(2, 3, 0, 1), y + s.map.reshape(1, 8, 1, 8).expand_as(y) + s.row.expand_as(y))[1].sum((0, 1)),
    "bmm": lambda s, x: torch.bmm(x.flatten(0, 1), x.flatten(0, 1)).unflatten(0, (-1, 8)),
    "attention": lambda s, x: F.scaled_dot_product_attention(laid(x), laid(x), laid(x), attn_mask=s.map).reshape(-1, 8, 8, 8),
    "squeeze": lambda s, x: moved(x)[:1].squeeze(0), "unsqueeze": lambda s, x: moved(x).unsqueeze(0).unsqueeze(-1).sum((0, 1)),
    "unflatten": lambda s, x: moved(x).unflatten(-1, (2, 4)).unflatten(0, (4, 2)).sum((0, 1)), "swapaxes": lambda s, x: x.swapaxes(0, 1).swapaxes(1, 0),
    "view_as": lambda s, x: laid(x).view_as(x), "reshape_as": lambda s, x: laid(x).reshape_as(x),
    "compare": lambda s, x: back(torch.where((between(x) > 0) & ~(between(x) > 1), between(x), s.row)),
    "masked": lambda s, x: laid(x).masked_fill(s.hidden, -torch.inf).softmax(-1).reshape(-1, 8, 8, 8),
    "addcmul": lambda s, x: back(torch.addcmul(between(x), between(x), s.row)),
    "flip": lambda s, x: moved(x).flip(0, 3).transpose(0, 1), "roll": lambda s, x: moved(x).roll((1, -2), (-1, 0)).transpose(0, 1),
    "index": lambda s, x: moved(x)[:, :, s.places].transpose(0, 1), "index in front": lambda s, x: moved(x)[s.places].transpose(0, 1),
    "index_select": lambda s, x: laid(x).index_select(2, s.places % 8).reshape(-1, 8, 4, 8),
    "var": lambda s, x: moved(x).var(0), "std": lambda s, x: (moved(x) / moved(x).std(-1, keepdim=True)).transpose(0, 1),
    "logsumexp": lambda s, x: moved(x).logsumexp((0, 2)), "cumsum": lambda s, x: moved(x).cumsum(0).transpose(0, 1),
    "whole slice": lambda s, x: moved(x)[:, :, 1:].transpose(0, 1),
}  # fmt: skip
"""Calls of tests.deploy.lowering.calling whose pictures are not always in the first axis."""
