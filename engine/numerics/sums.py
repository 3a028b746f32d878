"""Sums with a gradient, minima and maxima over the pictures of all ranks; a single process keeps its own values."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from engine.system import ranks


class _Total(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, mine: Tensor) -> Tensor:
        return ranks.reduced(mine, "SUM")

    @staticmethod
    def backward(ctx: Any, *grads: Tensor) -> Tensor:
        return ranks.reduced(grads[0], "SUM")


def total(value: Tensor) -> Tensor:
    """Return the sum over ranks; its gradient is the sum of the ranks' gradients."""
    return value if ranks.count() == 1 else _Total.apply(value)


def totals(values: Tensor, number: int) -> tuple[Tensor, float]:
    """Sum over all ranks a batch's sums, (channels,), which keep their gradient, and their number of summands."""
    if ranks.count() == 1:
        return values, number
    found = total(torch.cat([values, values.new_full((1,), number)]))
    return found[:-1], float(found[-1].detach())


def least(value: Tensor) -> Tensor:
    """Return the element-wise minimum over all ranks."""
    return value if ranks.count() == 1 else ranks.reduced(value, "MIN")


def most(value: Tensor) -> Tensor:
    """Return the element-wise maximum over all ranks."""
    return value if ranks.count() == 1 else ranks.reduced(value, "MAX")
