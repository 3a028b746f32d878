"""A segment's few numbers for each channel, computed between two passes over memory.

The formulas are of vectors, (channels,) unless said otherwise. Their gradients are written by hand, as are the passes'.

    a = gamma s r, c = beta, r = 1 / sqrt(s^2 var + eps)      with a norm, which cancels the layer's bias
    a = s, c = bias                                           without a norm

z (rows, channels) is a layer's output, s its scale, and x = (z - mean) a + c the input of the activation.
"""

from __future__ import annotations

from functools import cache
from types import ModuleType

import torch
from torch import Tensor, nn

from engine.numerics.norm_statistics import move_statistics
from models.fused.dispatch import by_kernels


def _kernels() -> ModuleType:
    from models.fused import channels_on_gpu

    return channels_on_gpu


@cache
def constant(value: float, device: torch.device) -> Tensor:
    """Return a number on a device, (), fp32. It is kept, because a copy in every step makes a GPU wait."""
    return torch.full((), value, dtype=torch.float32, device=device)


def on(scale: Tensor | float | None, device: torch.device) -> Tensor | None:
    """Return a scale as a tensor, None for 1."""
    return constant(scale, device) if isinstance(scale, float) else scale


def statistics(first: Tensor, second: Tensor, k: Tensor, count: int) -> tuple[Tensor, Tensor]:
    """Return mean and variance from the sums of z - k and of its square over `count` rows.

    Args:
        first, second: (parts, channels).
    """
    apart = first.sum(0) / count
    return k + apart, (second.sum(0) / count - apart * apart).clamp_min(0)


@by_kernels(_kernels)  # on a GPU every operation of these lines would be a launch
def normed(
    first: Tensor, second: Tensor, k: Tensor, count: int, s: Tensor | None, bias: Tensor | None, norm: nn.BatchNorm2d
) -> tuple[Tensor, Tensor, Tensor]:
    """Return mean and variance as `statistics`, and a and c with a norm, (2, channels). Update the norm's running statistics."""
    mean, var = statistics(first, second, k, count)
    read, spread = (mean, var) if s is None else (mean * s, var * s.square())
    move_statistics(norm, read if bias is None else read + bias, spread, count)
    a = (spread + norm.eps).rsqrt()
    a = a if s is None else s * a
    a = a if norm.weight is None else norm.weight * a
    return mean, var, torch.stack([a, torch.zeros_like(a) if norm.bias is None else norm.bias])


def plain(like: Tensor, s: Tensor | None, bias: Tensor | None) -> Tensor:
    """Return a and c without a norm, (2, channels).

    Args:
        like: any vector of length (channels,).
    """
    one, zero = torch.ones_like(like), torch.zeros_like(like)
    return torch.stack([one if s is None else s + zero, zero if bias is None else bias + zero])


@by_kernels(_kernels)  # on a GPU every operation of these lines would be a launch
def pulled(
    of_a: Tensor, of_c: Tensor, step: Tensor, var: Tensor, s: Tensor | None, gamma: Tensor | None, eps: float,
    count: int,
) -> tuple[Tensor, ...]:  # fmt: skip
    """Return the gradients with a norm: e0 and e1, then those of s, bias, gamma and beta.

    e0 + (z - mean) e1 is the gradient of z through its mean and variance.

    Args:
        of_a, of_c: gradients of a / step and c / step, (parts, channels).
    """
    of_a, of_c = of_a.sum(0) / step, of_c.sum(0) / step
    size = torch.ones_like(var) if s is None else s
    weight = torch.ones_like(var) if gamma is None else gamma
    r = (var * size.square() + eps).rsqrt()
    of_var = of_a * weight * size * size.square() * r * r * r * -0.5
    of_s, of_bias = of_a * weight * eps * r * r * r, torch.zeros_like(var)  # a norm cancels a bias
    return -weight * size * r * of_c / count, of_var * (2 / count), of_s, of_bias, of_a * size * r, of_c


def reach(mean: Tensor, factors: Tensor, low: Tensor, high: Tensor, bottom: float, top: float) -> tuple[Tensor, Tensor]:
    """Return the smallest and the largest output of an activation, () each.

    Args:
        low, high: the smallest and the largest z, (parts, channels).
    """
    ends = torch.stack([low.amin(0), high.amax(0)])
    x = ((ends - mean) * factors[0] + factors[1]).clamp(bottom, top)
    return x.amin(), x.amax()
