"""The windows of a max-pool, for the loops of a CPU and the kernels of a GPU."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from torch import nn

Pair = tuple[int, int]
LARGEST = 256
"""The most numbers in a window: a byte says which one was chosen."""


@dataclass(frozen=True)
class Windows:
    """Windows of size[0] x size[1] numbers over maps of before[0] x before[1] numbers.

    Args:
        step, around: stride and padding of nn.MaxPool2d, down and across.
    """

    size: Pair
    step: Pair
    around: Pair
    before: Pair

    @classmethod
    def of(cls, pool: nn.MaxPool2d, before: tuple[int, ...]) -> Windows:
        """Return the windows of a pool that `fits`, over maps of this size."""
        high, wide = before
        return cls(pair(pool.kernel_size), pair(pool.stride), pair(pool.padding), (high, wide))

    @property
    def after(self) -> Pair:
        """Size of the map of windows."""
        down, across = (
            (before + 2 * around - size) // step + 1
            for before, around, size, step in zip(self.before, self.around, self.size, self.step, strict=True)
        )
        return down, across


def fits(pool: nn.MaxPool2d) -> bool:
    """Return whether `Windows` describe a pool: no dilation, a byte for each number, no ceil_mode, no indices."""
    size = pair(pool.kernel_size)
    plain = pair(pool.dilation) == (1, 1) and not pool.return_indices and not pool.ceil_mode
    return plain and size[0] * size[1] <= LARGEST


def pair(value: Any) -> Pair:
    """Return a setting as two numbers; torch also takes one, alone or in a tuple."""
    first, *more = (value,) if isinstance(value, int) else value
    return first, more[0] if more else first
