"""Max-pools in channels_last memory as Triton kernels, one pass over memory forward and one backward.

Torch's kernels scatter gradients by atomics: slower, and in another order each time. These kernels gather: each input
reads the windows that contain it.
"""

from __future__ import annotations

from typing import Any

import torch
import triton
import triton.language as tl
from torch import Tensor, nn

from models.fused.windows import Windows

ROWS, WIDE = 32, 32


class Pool(torch.autograd.Function):
    """(B, C, H, W) -> (B, C, H', W'), both channels_last. Of equal numbers the first is chosen, as torch does."""

    @staticmethod
    def forward(ctx: Any, x: Tensor, windows: Windows) -> Tensor:
        batch, channels, *_ = x.shape
        shape = windows.after
        out = _empty((batch, channels, *shape), x)
        chosen = torch.empty_like(out, dtype=torch.uint8)
        ctx.save_for_backward(chosen)
        ctx.geometry = (x.shape, (*windows.before, *shape, *windows.size, *windows.step, *windows.around))
        rows = batch * shape[0] * shape[1]
        grid = (triton.cdiv(rows, ROWS), triton.cdiv(channels, WIDE))
        _forward[grid](x, out, chosen, rows, channels, *ctx.geometry[1], ROWS=ROWS, WIDE=WIDE)
        return out

    @staticmethod
    def backward(ctx: Any, *grads: Tensor) -> Any:
        (chosen,), (shape, geometry) = ctx.saved_tensors, ctx.geometry
        g = grads[0].contiguous(memory_format=torch.channels_last)
        out = _empty(shape, g)
        rows, channels = shape[0] * shape[2] * shape[3], shape[1]
        grid = (triton.cdiv(rows, ROWS), triton.cdiv(channels, WIDE))
        _backward[grid](g, chosen, out, rows, channels, *geometry, ROWS=ROWS, WIDE=WIDE)
        return out, None


def pooled(pool: nn.MaxPool2d, x: Tensor) -> Tensor:
    return Pool.apply(x.contiguous(memory_format=torch.channels_last), Windows.of(pool, x.shape[2:]))


def _empty(shape: tuple[int, ...], like: Tensor) -> Tensor:
    return torch.empty(shape, dtype=like.dtype, device=like.device, memory_format=torch.channels_last)


@triton.jit
def _places(rows, channels, ROWS: tl.constexpr, WIDE: tl.constexpr):
    row = tl.program_id(0) * ROWS + tl.arange(0, ROWS)
    channel = tl.program_id(1) * WIDE + tl.arange(0, WIDE)
    return row, channel, (row < rows)[:, None] & (channel < channels)[None, :]


@triton.jit
def _forward(
    x, out, chosen, rows, channels, H, W, OH, OW,
    KH: tl.constexpr, KW: tl.constexpr, SH: tl.constexpr, SW: tl.constexpr, PH: tl.constexpr, PW: tl.constexpr,
    ROWS: tl.constexpr, WIDE: tl.constexpr,
):  # fmt: skip
    row, channel, there = _places(rows, channels, ROWS, WIDE)
    batch, top, left = row // (OH * OW), (row // OW) % OH * SH - PH, row % OW * SW - PW
    best = tl.full((ROWS, WIDE), float("-inf"), tl.float32)
    which = tl.full((ROWS, WIDE), -1, tl.int32)
    for n in tl.static_range(KH * KW):
        h, w = top + n // KW, left + n % KW
        inside = (h >= 0) & (h < H) & (w >= 0) & (w < W)
        place = ((batch * H + h) * W + w).to(tl.int64)[:, None] * channels + channel[None, :]
        value = tl.load(x + place, there & inside[:, None], float("-inf")).to(tl.float32)
        better = inside[:, None] & ((value > best) | (value != value) | (which < 0))
        best = tl.where(better, value, best)
        which = tl.where(better, n, which)
    place = row.to(tl.int64)[:, None] * channels + channel[None, :]
    tl.store(out + place, best.to(out.dtype.element_ty), there)
    tl.store(chosen + place, which.to(tl.uint8), there)


@triton.jit
def _backward(
    g, chosen, out, rows, channels, H, W, OH, OW,
    KH: tl.constexpr, KW: tl.constexpr, SH: tl.constexpr, SW: tl.constexpr, PH: tl.constexpr, PW: tl.constexpr,
    ROWS: tl.constexpr, WIDE: tl.constexpr,
):  # fmt: skip
    row, channel, there = _places(rows, channels, ROWS, WIDE)
    batch, h, w = row // (H * W), (row // W) % H + PH, row % W + PW
    found = tl.zeros((ROWS, WIDE), tl.float32)
    for n in tl.static_range(((KH + SH - 1) // SH) * ((KW + SW - 1) // SW)):  # windows that can contain a number
        top, left = h // SH - n // ((KW + SW - 1) // SW), w // SW - n % ((KW + SW - 1) // SW)
        down, right = h - top * SH, w - left * SW
        inside = (top >= 0) & (left >= 0) & (top < OH) & (left < OW) & (down < KH) & (right < KW)
        place = ((batch * OH + top) * OW + left).to(tl.int64)[:, None] * channels + channel[None, :]
        here = there & inside[:, None]
        which = tl.load(chosen + place, here, 255).to(tl.int32)
        value = tl.load(g + place, here, 0.0).to(tl.float32)
        found += tl.where(here & (which == (down * KW + right)[:, None]), value, 0.0)
    tl.store(out + row.to(tl.int64)[:, None] * channels + channel[None, :], found.to(out.dtype.element_ty), there)
