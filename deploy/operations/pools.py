"""Operations that pool windows of maps."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Literal

from deploy.operations.base import FARTHEST, MOST_SUMS, Operation, Value, window, within


@dataclass(frozen=True, eq=False)
class MaxPool(Operation):
    """The largest number of each window of (C, H, W). `padding`: above, below, left, right, lower than all numbers."""

    kernel: tuple[int, int]
    stride: tuple[int, int]
    padding: tuple[int, int, int, int] = (0, 0, 0, 0)
    dilation: tuple[int, int] = (1, 1)
    ceil: bool = False

    def value(self, *given: Value) -> Value:
        shape = given[0].shape
        _narrow(self.padding, self.kernel)
        return Value((*shape[:1], *window(shape, self.kernel, self.stride, self.padding, self.dilation, self.ceil)))


@dataclass(frozen=True, eq=False)
class AveragePool(Operation):
    """The mean of each window of (C, H, W): the sum in fp64, row by row, over the count, rounded once.

    Args:
        padding: above, below, left, right, with zeros.
        counts_padding: whether the padding's zeros count; places that ceil adds never do.
        divisor: the count of every window; None: each window's own.
    """

    kernel: tuple[int, int]
    stride: tuple[int, int]
    padding: tuple[int, int, int, int] = (0, 0, 0, 0)
    ceil: bool = False
    counts_padding: bool = True
    divisor: int | None = None

    def value(self, *given: Value) -> Value:
        shape = given[0].shape
        _narrow(self.padding, self.kernel)
        if self.divisor is not None and not 0 < abs(self.divisor) <= FARTHEST**2:
            raise ValueError(
                f"a mean over a count of {self.divisor}: its absolute value must be from 1 to {FARTHEST**2:,}"
            )
        return Value((*shape[:1], *window(shape, self.kernel, self.stride, self.padding, ceil=self.ceil)))


def _narrow(padding: tuple[int, int, int, int], kernel: tuple[int, int]) -> None:
    """Limit padding to half the window, as torch does, so that no window is all padding."""
    if any(2 * side > kernel[place // 2] for place, side in enumerate(padding)):
        raise ValueError(f"a padding of {padding} around windows of {kernel} exceeds half the window")


@dataclass(frozen=True, eq=False)
class AdaptivePool(Operation):
    """Means (in fp64, rounded once) or maxima of windows from floor(i n / out) to ceil((i + 1) n / out)."""

    kind: Literal["mean", "max"]
    size: tuple[int, int]

    def value(self, *given: Value) -> Value:
        if len(given[0].shape) != 3:
            raise ValueError(f"a pool of a value of shape {given[0].shape}, not (channels, rows, columns)")
        within(1, FARTHEST, size=self.size)
        if math.prod(self.size) > MOST_SUMS or math.prod(given[0].shape[1:]) > MOST_SUMS:
            raise ValueError(
                f"{self.size} windows of a value of shape {given[0].shape}: one of the two exceeds {MOST_SUMS:,}"
            )
        return Value((given[0].shape[0], *self.size))
