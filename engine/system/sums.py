"""What the pictures of all ranks add up to: sums with a gradient, and ends. See ranks.py; of one process, its own."""

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
    """The sum over ranks. Its gradient is the sum of theirs."""
    return value if ranks.count() == 1 else _Total.apply(value)


def totals(values: Tensor, number: int) -> tuple[Tensor, float]:
    """Sums over a batch, (channels,), and what they are sums of, over all ranks. The sums have a gradient."""
    if ranks.count() == 1:
        return values, number
    found = total(torch.cat([values, values.new_full((1,), number)]))
    return found[:-1], float(found[-1].detach())


def least(value: Tensor) -> Tensor:
    """The least number of all ranks."""
    return value if ranks.count() == 1 else ranks.reduced(value, "MIN")


def most(value: Tensor) -> Tensor:
    """The largest number of all ranks."""
    return value if ranks.count() == 1 else ranks.reduced(value, "MAX")
