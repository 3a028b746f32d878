"""The operations between two layers and their gradients: batch norm, activation, codes. One pass over memory each.

    x = clamp((z - k) * a + c, bottom, top)      z: a layer's output, (numbers a channel, channels); k, a, c: (channels,)
    codes = clamp(round(x / step), low, high), or clamp(round(PRESCALE x high), low, high), or signs of x, or x itself

Backward, a and c belong to v = x / step: dv / dz is `a` where least <= v <= most, else 0. All arithmetic is fp32,
whatever the type of z and of the gradients. source/fused.cpp computes these formulas on a CPU, on_gpu.py on a GPU. One
difference: in fused.cpp the smallest and the largest number of `moments` ignore NaN.
"""

from __future__ import annotations

import torch
from torch import Tensor

from models.layers.quantizers import dorefa, ternary
from models.layers.quantizers.base import Kind

PRESCALE, THRESHOLD = dorefa.ACTIVATION_PRESCALE, ternary.ACTIVATION_THRESHOLD


def moments(z: Tensor, k: Tensor, ends: bool) -> tuple[Tensor, ...]:
    """Return each channel's sums of z - k and of its square, (channels,); with `ends`, also its smallest and largest number."""
    raw = z.float()
    apart = raw - k
    sums = (apart.sum(0), (apart * apart).sum(0))
    return (*sums, raw.amin(0), raw.amax(0)) if ends else sums


def coded(z: Tensor, k: Tensor, a: Tensor, c: Tensor, grid: Tensor, kind: Kind, dtype: torch.dtype) -> Tensor:
    """Return the input of the next layer, in `dtype`.

    Args:
        grid: bottom, top, step, low, high, least, most, first, last, (9,).
    """
    x = torch.minimum(torch.maximum((z.float() - k) * a + c, grid[0]), grid[1])
    if kind == "round":
        x = torch.minimum(torch.maximum(x / grid[2], grid[3]), grid[4]).round()
    elif kind == "share":
        x = torch.minimum(torch.maximum(x * PRESCALE * grid[4], grid[3]), grid[4]).round()
    elif kind == "sign":
        x = torch.where(x >= 0, 1.0, -1.0)
    elif kind == "ternary":
        x = (x > THRESHOLD).float() - (x < -THRESHOLD).float()
    return x.to(dtype)


def _pulled(g: Tensor, v: Tensor, grid: Tensor, kind: Kind, slope: str) -> Tensor:
    """Return the gradient of v."""
    d = g.float()
    if slope == "soft" and kind == "sign":
        d = d * (1 - v.abs()).clamp_min(0)
    elif slope == "soft" and kind == "ternary":
        d = d * (1 - 2 * (v.abs() - THRESHOLD).abs()).clamp_min(0)
    return torch.where((v >= grid[5]) & (v <= grid[6]), d, 0.0)


def sums(
    g: Tensor, z: Tensor, k: Tensor, a: Tensor, c: Tensor, grid: Tensor, kind: Kind, slope: str
) -> tuple[Tensor, Tensor, Tensor]:
    """Return each channel's sums of d (z - k), of d and of g x / step, (channels,) each; d is the gradient of v.

    The last sum is for the step. It counts where first <= x / step <= last: where an activation holds a number at its
    end, it has no slope, but the code still depends on the step.
    """
    apart = z.float() - k
    v = apart * a + c
    d = _pulled(g, v, grid, kind, slope)
    x = torch.minimum(torch.maximum(v, grid[0] / grid[2]), grid[1] / grid[2])
    steps = torch.where((x >= grid[7]) & (x <= grid[8]), g.float() * x, 0.0)
    return (d * apart).sum(0), d.sum(0), steps.sum(0)


def back(
    g: Tensor,
    z: Tensor,
    k: Tensor,
    a: Tensor,
    c: Tensor,
    grid: Tensor,
    e0: Tensor,
    e1: Tensor,
    kind: Kind,
    slope: str,
) -> Tensor:
    """Return the gradient of z, in z's dtype: through v, and through each channel's mean and variance, e0 + (z - k) e1."""
    apart = z.float() - k
    d = _pulled(g, apart * a + c, grid, kind, slope)
    return (d * a + e0 + apart * e1).to(z.dtype)


def spread(z: Tensor, k: Tensor, e0: Tensor, e1: Tensor) -> Tensor:
    """Return the gradient of z through each channel's mean and variance alone, in z's dtype."""
    return (e0 + (z.float() - k) * e1).to(z.dtype)
