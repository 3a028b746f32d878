"""Operations that move, cut and repeat numbers."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Literal

import numpy as np
from numpy.typing import NDArray

from deploy.operations.base import (
    FARTHEST,
    MOST_AXES,
    Integers,
    Operation,
    Shape,
    Value,
    axes_of,
    short,
    single,
    within,
)


@dataclass(frozen=True, eq=False)
class Concatenate(Operation):
    """Values concatenated along an axis."""

    axis: int
    reads = None

    def value(self, *given: Value) -> Value:
        first = given[0].shape
        axis = axes_of(self.axis, first)
        if any(v.shape[:axis] != first[:axis] or v.shape[axis + 1 :] != first[axis + 1 :] for v in given):
            raise ValueError(f"values of shapes {short([v.shape for v in given])[1:-1]} along axis {axis} do not fit")
        return Value((*first[:axis], sum(v.shape[axis] for v in given), *first[axis + 1 :]))


@dataclass(frozen=True, eq=False)
class Slice(Operation):
    """Every `step`-th index of an axis from `start` up to, but not including, `stop`."""

    axis: int
    start: int
    stop: int
    step: int = 1

    def value(self, *given: Value) -> Value:
        shape = given[0].shape
        size = shape[axes_of(self.axis, shape)]
        if not (0 <= self.start < self.stop <= size and self.step >= 1):
            raise ValueError(
                f"indices {self.start} to {self.stop} in steps of {self.step} do not fit an axis of {size}"
            )
        count = len(range(self.start, self.stop, self.step))
        return Value((*shape[: self.axis], count, *shape[self.axis + 1 :]))


@dataclass(frozen=True, eq=False)
class Take(Operation):
    """The numbers at some places of an axis, in the order given; a place may be named several times.

    Args:
        places: (count,).
    """

    axis: int
    places: Integers

    def value(self, *given: Value) -> Value:
        shape = given[0].shape
        size = shape[axes_of(self.axis, shape)]
        if self.places.ndim != 1 or not self.places.size or self.places.min() < 0 or self.places.max() >= size:
            raise ValueError(f"places {short(self.places.tolist())} are not a list of places of an axis of {size}")
        return Value((*shape[: self.axis], len(self.places), *shape[self.axis + 1 :]))


@dataclass(frozen=True, eq=False)
class Pad(Operation):
    """Padding of (C, H, W), numbers or codes: rows and columns above, below, left, right, and channels before and after.

    Args:
        kind: constant: the number `fill`; reflect, replicate, circular: as in torch.
    """

    sides: tuple[int, int, int, int]
    kind: Literal["constant", "reflect", "replicate", "circular"] = "constant"
    fill: float = 0.0
    channels: tuple[int, int] = (0, 0)
    takes_codes = True

    def value(self, *given: Value) -> Value:
        shape = given[0].shape
        if len(shape) != 3 or not single(self.fill):
            raise ValueError(
                f"a padding of {self.fill} around a value of shape {shape}: it needs 3 axes and a fill in fp32"
            )
        within(-FARTHEST if self.kind == "constant" else 0, FARTHEST, sides=self.sides)
        within(0, FARTHEST, channels=self.channels)
        most = {"reflect": -1, "circular": 0}
        for place, side in enumerate(self.sides):
            if self.kind in most and side > shape[1 + place // 2] + most[self.kind]:
                raise ValueError(f"{self.kind} padding of {self.sides} around a value of shape {shape} is too wide")
        if self.kind != "constant" and any(self.channels):
            raise ValueError(f"{self.kind} padding of channels: only constant padding can add them")
        above, below, left, right = self.sides
        found = (shape[0] + sum(self.channels), shape[1] + above + below, shape[2] + left + right)
        if min(found) < 1 or any(-side > shape[1 + place // 2] for place, side in enumerate(self.sides)):
            raise ValueError(f"a padding of {self.sides} that leaves nothing of a value of shape {shape}")
        if given[0].grid is not None and self.fill:
            raise ValueError(f"codes padded with {self.fill}, not 0")
        return Value(found, given[0].grid)


@dataclass(frozen=True, eq=False)
class Reshape(Operation):
    """The same numbers in the same order in another shape."""

    shape: tuple[int, ...]

    def value(self, *given: Value) -> Value:
        within(1, 2**31, shape=self.shape)
        if len(self.shape) > MOST_AXES or math.prod(self.shape) != math.prod(given[0].shape):
            raise ValueError(
                f"a value of shape {given[0].shape} as one of shape {short(self.shape)}: another count of numbers, or more than {MOST_AXES} axes"
            )
        return Value(self.shape)


@dataclass(frozen=True, eq=False)
class Permute(Operation):
    """A permutation of axes: axis i of the result is axis axes[i] of the source."""

    axes: tuple[int, ...]

    def value(self, *given: Value) -> Value:
        shape: Shape = given[0].shape
        if sorted(self.axes) != list(range(len(shape))):
            raise ValueError(f"axes {short(self.axes)} of a value of shape {shape} are not a permutation")
        return Value(tuple(shape[axis] for axis in self.axes))


def nearest(new: int, old: int) -> NDArray[np.int64]:
    """Return the index of the nearest of `old` places for each of `new` places: place * old // new."""
    return np.arange(new) * old // new


def between(new: int, old: int, align: bool) -> tuple[NDArray[np.int64], NDArray[np.int64], NDArray[np.float64]]:
    """Return for each of `new` places the two of `old` places around it, and the share of the second one.

    Args:
        align: whether the first and the last places of both lie upon each other; otherwise their outer edges do.
    """
    step = (old - 1) / max(new - 1, 1) if align else old / new
    at = np.arange(new) * step if align else np.maximum((np.arange(new) + 0.5) * step - 0.5, 0)
    first = np.minimum(at.astype(np.int64), old - 1)
    return first, np.minimum(first + 1, old - 1), np.minimum(at - first, 1)


@dataclass(frozen=True, eq=False)
class Upsample(Operation):
    """(C, H, W) resized: the nearest number before (place * old // new), or bilinear interpolation in fp64."""

    kind: Literal["nearest", "bilinear"]
    size: tuple[int, int]
    align_corners: bool = False

    def value(self, *given: Value) -> Value:
        if len(given[0].shape) != 3:
            raise ValueError(f"an upsampling of a value of shape {given[0].shape}, not (channels, rows, columns)")
        within(1, FARTHEST, size=self.size)
        return Value((given[0].shape[0], *self.size))
