"""The gradients of a segment, written by hand."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from models.fused import channels, loops
from models.fused.grid import Act, grid_of
from models.fused.windows import Windows
from models.layers.quantizers.base import Rule


def rows(z: Tensor) -> Tensor:
    """Reshape (B, C, H, W) to (B H W, C)."""
    return z.contiguous(memory_format=torch.channels_last).permute(0, 2, 3, 1).reshape(-1, z.shape[1])


def moments(z: Tensor) -> tuple[Tensor, Tensor]:
    """Compute models.layers.conv_q.moments in one pass forward and one backward."""
    return _Moments.apply(rows(z))


def measured(z: Tensor, ends: bool) -> tuple[Tensor, tuple[Tensor, ...]]:
    """Return a number near each channel's mean, and the result of `loops.moments` with it."""
    k = z[0] if z.is_cuda else z[0].float()  # without k, a mean far from 0 costs the variance digits
    return k, loops.moments(z, k, ends)


class _Moments(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, z: Tensor) -> tuple[Tensor, Tensor]:
        k, (first, second) = measured(z, False)
        mean, var = channels.statistics(first, second, k, len(z))
        ctx.save_for_backward(z, mean)
        return mean, var

    @staticmethod
    def backward(ctx: Any, *grads: Tensor) -> Tensor:
        z, mean = ctx.saved_tensors
        of_mean, of_var = grads
        return loops.spread(z, mean, of_mean / len(z), of_var * (2 / len(z)))


@dataclass(frozen=True)
class Selected:
    """The numbers that a max-pool before or behind the activation selects: all that is coded.

    Args:
        z, which: see selecting.selected.
    """

    z: Tensor
    which: Tensor
    windows: Windows


@dataclass(frozen=True)
class Told:
    """The values that turn rows of numbers into rows of codes: codes of act((z - mean) a + c).

    Args:
        factors: a and c, (2, channels).
        eps: the norm's; None: there is no norm, and mean and variance are constants.
        selected: None: all of z is coded.
    """

    mean: Tensor
    var: Tensor
    factors: Tensor
    eps: float | None
    rule: Rule
    act: Act
    dtype: torch.dtype
    selected: Selected | None = None


class Coded(torch.autograd.Function):
    """Rows of numbers to rows of codes.

    The arguments behind `told` have gradients: the step of the rule, if it is learned; scale and bias of the layer;
    gamma and beta of the norm.
    """

    @staticmethod
    def forward(
        ctx: Any, z: Tensor, told: Told, step: Tensor | None, scale: Tensor | None, bias: Tensor | None,
        gamma: Tensor | None, beta: Tensor | None,
    ) -> Tensor:  # fmt: skip
        grid = grid_of(told.rule, told.act, z.device)
        picked = told.selected
        read, which, windows = (z, None, None) if picked is None else (picked.z, picked.which, picked.windows)
        ctx.save_for_backward(z, read, which, told.mean, told.var, told.factors, grid, scale, gamma)
        ctx.told = (told.rule, told.eps, windows)
        a, c = told.factors
        return loops.coded(read, told.mean, a, c, grid, told.rule.kind, told.dtype)

    @staticmethod
    def backward(ctx: Any, *grads: Tensor) -> Any:
        z, read, which, mean, var, factors, grid, scale, gamma = ctx.saved_tensors
        (rule, eps, windows), step, wanted = ctx.told, grid[2], ctx.needs_input_grad
        g, (a, c) = grads[0].contiguous(), factors if rule.kind == "number" else factors / step
        found: list[Tensor | None] = [None] * 5  # of step, scale, bias, gamma, beta
        e0 = e1 = None
        if eps is not None or any(wanted[2:]):
            of_a, of_c, of_v = loops.sums(g, read, mean, a, c, grid, rule.kind, rule.slope)
            if rule.learned:
                found[0] = -(of_v.sum() / step)
            if eps is None:
                found[1], found[2] = of_a.sum(0) / step, of_c.sum(0) / step
            else:
                e0, e1, *found[1:] = channels.pulled(of_a, of_c, step, var, flattened(scale), gamma, eps, len(z))
        if e0 is None or e1 is None:  # mean and variance are constants
            e0 = e1 = torch.zeros_like(mean)
        if found[1] is not None and scale is not None:
            found[1] = (found[1] if scale.numel() > 1 else found[1].sum()).reshape(scale.shape)
        of_z = None
        if wanted[0] and windows is None:
            of_z = loops.back(g, z, mean, a, c, grid, e0, e1, rule.kind, rule.slope)
        elif wanted[0]:
            none = torch.zeros_like(mean)
            d = loops.back(g, read, mean, a, c, grid, none, none, rule.kind, rule.slope)
            of_z = loops.returned(d, which, z, mean, e0, e1, windows)
        return of_z, None, *(grad if asked else None for grad, asked in zip(found, wanted[2:], strict=True))


def flattened(scale: Tensor | None) -> Tensor | None:
    """Return a scale as a vector: (1,) if it is one for all channels, else (channels,)."""
    return None if scale is None else scale.detach().reshape(-1)
