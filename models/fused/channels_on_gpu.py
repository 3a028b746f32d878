"""Two formulas of channels.py that every training step needs, as one Triton kernel each: about twenty launches fewer a layer."""

from __future__ import annotations

import triton
import triton.language as tl
from torch import Tensor, nn

WIDE, PARTS, WARPS = 2, 256, 2
"""A program's channels, the parts of a sum that it adds at a time, and its warps. These kernels wait for memory, not for
arithmetic, so many small programs are faster."""


def normed(
    first: Tensor, second: Tensor, k: Tensor, count: int, s: Tensor | None, bias: Tensor | None, norm: nn.BatchNorm2d
) -> tuple[Tensor, Tensor, Tensor]:
    parts, channels = first.shape
    mean, var, factors = first.new_empty(channels), first.new_empty(channels), first.new_empty(2, channels)
    batches, share = norm.num_batches_tracked, norm.momentum
    if batches is not None and share is None:
        batches.add_(1)  # all programs read it
    _normed[(triton.cdiv(channels, WIDE),)](
        first, second, k, _or(s, first), _or(bias, first), _or(norm.weight, first), _or(norm.bias, first),
        _or(norm.running_mean, first), _or(norm.running_var, first), _or(batches, first), float(share or 0), norm.eps,
        mean, var, factors, float(count), parts, channels,
        S=_kind(s), BIAS=bias is not None, GAMMA=norm.weight is not None, BETA=norm.bias is not None,
        TRACKS=norm.running_mean is not None, SHARE=share is not None, PARTS=PARTS, WIDE=WIDE, num_warps=WARPS,
    )  # fmt: skip
    return mean, var, factors


def pulled(
    of_a: Tensor, of_c: Tensor, step: Tensor, var: Tensor, s: Tensor | None, gamma: Tensor | None, eps: float,
    count: int,
) -> tuple[Tensor, ...]:  # fmt: skip
    parts, channels = of_a.shape
    found = var.new_empty(6, channels)
    _pulled[(triton.cdiv(channels, WIDE),)](
        of_a, of_c, step, var, _or(s, var), _or(gamma, var), eps, found, float(count), parts, channels,
        S=_kind(s), GAMMA=gamma is not None, PARTS=PARTS, WIDE=WIDE, num_warps=WARPS,
    )  # fmt: skip
    return found.unbind()


def _or(value: Tensor | None, instead: Tensor) -> Tensor:
    return instead if value is None else value.detach()


def _kind(s: Tensor | None) -> int:
    """Return the kind of a scale: 0: none; 1: one for all channels; 2: one for each."""
    return 0 if s is None else 1 if s.numel() == 1 else 2


@triton.jit
def _total(of, parts, channels, channel, inside, PARTS: tl.constexpr, WIDE: tl.constexpr):
    found = tl.zeros((PARTS, WIDE), tl.float32)
    for start in range(0, parts, PARTS):
        part = start + tl.arange(0, PARTS)
        there = (part < parts)[:, None] & inside[None, :]
        found += tl.load(of + part[:, None] * channels + channel[None, :], there, 0.0)
    return tl.sum(found, 0)


@triton.jit
def _size(s, channel, inside, S: tl.constexpr, WIDE: tl.constexpr):
    size = tl.full((WIDE,), 1.0, tl.float32)
    if S == 1:
        size = size * tl.load(s)
    if S == 2:
        size = tl.load(s + channel, inside, 1.0)
    return size


@triton.jit
def _normed(
    first, second, k, s, bias, gamma, beta, running_mean, running_var, batches, share, eps, mean_to, var_to, factors,
    count, parts, channels,
    S: tl.constexpr, BIAS: tl.constexpr, GAMMA: tl.constexpr, BETA: tl.constexpr, TRACKS: tl.constexpr,
    SHARE: tl.constexpr, PARTS: tl.constexpr, WIDE: tl.constexpr,
):  # fmt: skip
    channel = tl.program_id(0) * WIDE + tl.arange(0, WIDE)
    inside = channel < channels
    apart = _total(first, parts, channels, channel, inside, PARTS, WIDE) / count
    mean = tl.load(k + channel, inside, 0.0).to(tl.float32) + apart
    square = _total(second, parts, channels, channel, inside, PARTS, WIDE) / count
    var = tl.maximum(square - apart * apart, 0.0, tl.PropagateNan.ALL)
    size = _size(s, channel, inside, S, WIDE)
    spread = var * size * size
    a = size / tl.sqrt_rn(spread + eps)
    if GAMMA:
        a = a * tl.load(gamma + channel, inside, 0.0)
    c = tl.zeros((WIDE,), tl.float32)
    if BETA:
        c = tl.load(beta + channel, inside, 0.0)
    tl.store(mean_to + channel, mean, inside)
    tl.store(var_to + channel, var, inside)
    tl.store(factors + channel, a, inside)
    tl.store(factors + channels + channel, c, inside)
    if TRACKS:
        read = mean * size
        if BIAS:
            read += tl.load(bias + channel, inside, 0.0)
        if SHARE:
            part = share
            if tl.program_id(0) == 0:
                tl.store(batches, tl.load(batches) + 1)
        else:
            part = 1.0 / tl.load(batches).to(tl.float32)
        was = tl.load(running_mean + channel, inside, 0.0)
        tl.store(running_mean + channel, was + part * (read - was), inside)
        was = tl.load(running_var + channel, inside, 0.0)
        spread = spread * (count / tl.maximum(count - 1, 1.0))
        tl.store(running_var + channel, was + part * (spread - was), inside)


@triton.jit
def _pulled(
    of_a, of_c, step, var, s, gamma, eps, found, count, parts, channels,
    S: tl.constexpr, GAMMA: tl.constexpr, PARTS: tl.constexpr, WIDE: tl.constexpr,
):  # fmt: skip
    channel = tl.program_id(0) * WIDE + tl.arange(0, WIDE)
    inside = channel < channels
    unit = tl.load(step)
    of_factor = _total(of_a, parts, channels, channel, inside, PARTS, WIDE) / unit
    of_shift = _total(of_c, parts, channels, channel, inside, PARTS, WIDE) / unit
    size = _size(s, channel, inside, S, WIDE)
    weight = tl.full((WIDE,), 1.0, tl.float32)
    if GAMMA:
        weight = tl.load(gamma + channel, inside, 1.0)
    r = 1.0 / tl.sqrt_rn(tl.load(var + channel, inside, 1.0) * size * size + eps)
    of_var = of_factor * weight * size * size * size * r * r * r * -0.5
    into = found + channel
    tl.store(into, -weight * size * r * of_shift / count, inside)
    tl.store(into + channels, of_var * 2 / count, inside)
    tl.store(into + 2 * channels, of_factor * weight * eps * r * r * r, inside)
    tl.store(into + 3 * channels, tl.zeros((WIDE,), tl.float32), inside)  # a norm cancels a bias
    tl.store(into + 4 * channels, of_factor * size * r, inside)
    tl.store(into + 5 * channels, of_shift, inside)
