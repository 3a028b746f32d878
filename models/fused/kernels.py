"""What stands between two layers, number by number: batch norm, activation, codes; and its gradients. One pass over memory each.

    x = clamp((z - k) * a + c, bottom, top)      z: what a layer gives, (numbers a channel, channels); k, a, c: of each channel
    codes = clamp(round(x / step), low, high), or signs of x, or x itself

Backward, a and c are those of v = x / step: dv / dz is `a` where least <= v <= most, else 0. All is computed in fp32, whatever z and
the gradients are stored in. These formulas define what source/fused.cpp computes (but that the ends of `moments` leave out what is no
number), and on_gpu.py on a GPU.
"""

from __future__ import annotations

import torch
from torch import Tensor

from models.layers.quantizers import ternary
from models.layers.quantizers.base import Kind

THRESHOLD = ternary.ACTIVATION_THRESHOLD


def moments(z: Tensor, k: Tensor, ends: bool) -> tuple[Tensor, ...]:
    """Of each channel the sum of z - k and of its square, (channels,); with `ends` its least and largest number, too."""
    raw = z.float()
    apart = raw - k
    sums = (apart.sum(0), (apart * apart).sum(0))
    return (*sums, raw.amin(0), raw.amax(0)) if ends else sums


def coded(z: Tensor, k: Tensor, a: Tensor, c: Tensor, grid: Tensor, kind: Kind, dtype: torch.dtype) -> Tensor:
    """What the next layer reads, in `dtype`.

    Args:
        grid: bottom, top, step, low, high, least, most, first, last, (9,).
    """
    x = torch.minimum(torch.maximum((z.float() - k) * a + c, grid[0]), grid[1])
    if kind == "round":
        x = torch.minimum(torch.maximum(x / grid[2], grid[3]), grid[4]).round()
    elif kind == "sign":
        x = torch.where(x >= 0, 1.0, -1.0)
    elif kind == "ternary":
        x = (x > THRESHOLD).float() - (x < -THRESHOLD).float()
    return x.to(dtype)


def _pulled(g: Tensor, v: Tensor, grid: Tensor, kind: Kind, slope: str) -> Tensor:
    """The gradient of v."""
    d = g.float()
    if slope == "soft" and kind == "sign":
        d = d * (1 - v.abs()).clamp_min(0)
    elif slope == "soft" and kind == "ternary":
        d = d * (1 - 2 * (v.abs() - THRESHOLD).abs()).clamp_min(0)
    return torch.where((v >= grid[5]) & (v <= grid[6]), d, 0.0)


def sums(
    g: Tensor, z: Tensor, k: Tensor, a: Tensor, c: Tensor, grid: Tensor, kind: Kind, slope: str
) -> tuple[Tensor, Tensor, Tensor]:
    """Of each channel the sums of d (z - k) and of d, with d the gradient of v, and of g x / step; (channels,) each.

    The last one is of the step. It counts where first <= x / step <= last: an activation that holds a number at its end has no slope
    there, and its code still depends on the step.
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
    """The gradient of z, as z is stored: through v, and through mean and variance of each channel, e0 + (z - k) e1."""
    apart = z.float() - k
    d = _pulled(g, apart * a + c, grid, kind, slope)
    return (d * a + e0 + apart * e1).to(z.dtype)


def spread(z: Tensor, k: Tensor, e0: Tensor, e1: Tensor) -> Tensor:
    """A gradient of mean and variance of each channel alone, on its numbers; as z is stored."""
    return (e0 + (z.float() - k) * e1).to(z.dtype)
