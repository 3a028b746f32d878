"""What a segment computes of its channels: some numbers each, between two passes over memory.

These are formulas of vectors, (channels,) unless said otherwise. Gradients are by hand, as those of the passes are.

    a = gamma s r, c = beta, r = 1 / sqrt(s^2 var + eps)      with a norm, which takes a layer's bias away
    a = s, c = bias                                           without one

z (rows, channels) is what a layer gives, s its scale, and x = (z - mean) a + c what an activation reads.
"""

from __future__ import annotations

from functools import cache
from types import ModuleType

import torch
from torch import Tensor, nn

from engine.system.running import move_statistics
from models.fused.dispatch import by_kernels


def _kernels() -> ModuleType:
    from models.fused import channels_on_gpu

    return channels_on_gpu


@cache
def constant(value: float, device: torch.device) -> Tensor:
    """A number on a device, (), fp32: one that is brought there in every step would make a GPU wait."""
    return torch.full((), value, dtype=torch.float32, device=device)


def statistics(first: Tensor, second: Tensor, k: Tensor, count: int) -> tuple[Tensor, Tensor]:
    """Mean and variance, of the sums of z - k and of its square over so many rows.

    Args:
        first, second: (parts, channels).
    """
    apart = first.sum(0) / count
    return k + apart, (second.sum(0) / count - apart * apart).clamp_min(0)


@by_kernels(_kernels)  # every operation of these lines would be a launch there
def normed(
    first: Tensor, second: Tensor, k: Tensor, count: int, s: Tensor | None, bias: Tensor | None, norm: nn.BatchNorm2d
) -> tuple[Tensor, Tensor, Tensor]:
    """Mean and variance as `statistics`, and a and c with a norm, (2, channels). The norm's running statistics are moved."""
    mean, var = statistics(first, second, k, count)
    read, spread = (mean, var) if s is None else (mean * s, var * s.square())
    move_statistics(norm, read if bias is None else read + bias, spread, count)
    a = (spread + norm.eps).rsqrt()
    a = a if s is None else s * a
    a = a if norm.weight is None else norm.weight * a
    return mean, var, torch.stack([a, torch.zeros_like(a) if norm.bias is None else norm.bias])


def plain(like: Tensor, s: Tensor | None, bias: Tensor | None) -> Tensor:
    """a and c without a norm, (2, channels); `like`: any vector of that length."""
    one, zero = torch.ones_like(like), torch.zeros_like(like)
    return torch.stack([one if s is None else s + zero, zero if bias is None else bias + zero])


@by_kernels(_kernels)  # every operation of these lines would be a launch there
def pulled(
    of_a: Tensor, of_c: Tensor, step: Tensor, var: Tensor, s: Tensor | None, gamma: Tensor | None, eps: float,
    count: int,
) -> tuple[Tensor, ...]:  # fmt: skip
    """With a norm: the gradients of z through its mean and variance, e0 + (z - mean) e1, and those of s, bias, gamma and beta.

    Args:
        of_a, of_c: gradients of a / step and c / step, (parts, channels).
    """
    of_a, of_c = of_a.sum(0) / step, of_c.sum(0) / step
    size = torch.ones_like(var) if s is None else s
    weight = torch.ones_like(var) if gamma is None else gamma
    r = (var * size.square() + eps).rsqrt()
    of_var = of_a * weight * size * size.square() * r * r * r * -0.5
    of_s, of_bias = of_a * weight * eps * r * r * r, torch.zeros_like(var)  # a norm takes a bias away
    return -weight * size * r * of_c / count, of_var * (2 / count), of_s, of_bias, of_a * size * r, of_c


def reach(mean: Tensor, factors: Tensor, low: Tensor, high: Tensor, bottom: float, top: float) -> tuple[Tensor, Tensor]:
    """The least and the largest x that an activation gives, of the least and the largest z, (parts, channels); () each."""
    ends = torch.stack([low.amin(0), high.amax(0)])
    x = ((ends - mean) * factors[0] + factors[1]).clamp(bottom, top)
    return x.amin(), x.amax()
