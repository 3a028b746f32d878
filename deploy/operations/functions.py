"""Operations on each number, on two values, and along axes."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Literal

from deploy.operations.base import MOST_SUMS, Numbers, Operation, Shape, Value, axes_of, short, single

Kind = Literal[
    "abs", "ceil", "clamp", "elu", "erf", "exp", "expm1", "floor", "gelu", "gelu_tanh", "hardsigmoid", "hardswish",
    "leaky_relu", "log", "log1p", "mish", "relu", "round", "sigmoid", "sign", "silu", "sqrt", "tanh",
]  # fmt: skip
SETTINGS: dict[str, int] = {"clamp": 2, "elu": 1, "leaky_relu": 1}
"""The number of settings of a function: the lowest and the highest number; alpha; the slope."""


@dataclass(frozen=True, eq=False)
class Function(Operation):
    """An elementwise function."""

    kind: Kind
    settings: tuple[float, ...] = ()

    def value(self, *given: Value) -> Value:
        known = all(single(s) or (self.kind == "clamp" and math.isinf(s)) for s in self.settings)
        if len(self.settings) != SETTINGS.get(self.kind, 0) or not known:
            raise ValueError(
                f"{self.kind} with the settings {short(self.settings)}; it takes {SETTINGS.get(self.kind, 0)} fp32 numbers"
            )
        return Value(given[0].shape)


@dataclass(frozen=True, eq=False)
class Slopes(Operation):
    """PReLU: x where x > 0, else x * slope; a slope for each channel, or one for all, (1,)."""

    slope: Numbers

    def value(self, *given: Value) -> Value:
        shape = given[0].shape
        if self.slope.shape not in ((1,), (shape[axes_of(0, shape)],)):
            raise ValueError(
                f"slopes of shape {self.slope.shape} on a value of shape {shape}, not (1,) or one for each channel"
            )
        return Value(shape)


@dataclass(frozen=True, eq=False)
class Combine(Operation):
    """Two values combined number by number; an axis of length 1 broadcasts.

    Args:
        kind: eq, ne, gt, ge, lt and le compare: 1 where it is true, else 0. keep: the first where the second is not 0, else
            0.
    """

    kind: Literal["add", "sub", "mul", "div", "max", "min", "pow", "eq", "ne", "gt", "ge", "lt", "le", "keep"]
    reads = 2

    def value(self, *given: Value) -> Value:
        one, other = (v.shape for v in given)
        if len(one) != len(other) or any(a != b and 1 not in (a, b) for a, b in zip(one, other, strict=True)):
            raise ValueError(f"values of shapes {one} and {other} do not broadcast")
        return Value(tuple(map(max, one, other)))


@dataclass(frozen=True, eq=False)
class Product(Operation):
    """Matrix products over the last two axes: (..., M, K) and (..., K, N) give (..., M, N).

    Other axes are equal, or an axis of length 1 broadcasts. Sums are in fp64, rounded once.
    """

    reads = 2

    def value(self, *given: Value) -> Value:
        one, other = (v.shape for v in given)
        rank = len(one)
        if not 2 <= rank == len(other) or one[-1] != other[-2]:
            raise ValueError(f"values of shapes {one} and {other} have no matrix product")
        if any(a != b and 1 not in (a, b) for a, b in zip(one[:-2], other[:-2], strict=True)):
            raise ValueError(f"values of shapes {one} and {other} do not broadcast")
        if one[-1] > MOST_SUMS:
            raise ValueError(f"a sum of {one[-1]:,} products, more than {MOST_SUMS:,}")
        return Value((*map(max, one[:-2], other[:-2]), one[-2], other[-1]))


@dataclass(frozen=True, eq=False)
class Constant(Operation):
    """The same numbers for each picture."""

    numbers: Numbers
    reads = 0

    def value(self, *given: Value) -> Value:
        if not self.numbers.size:
            raise ValueError(f"no numbers, of shape {self.numbers.shape}: it needs one or more")
        return Value(self.numbers.shape)


@dataclass(frozen=True, eq=False)
class Reduce(Operation):
    """A reduction over some axes, which then have length 1. Sums are in fp64, in order, rounded once."""

    kind: Literal["mean", "sum", "max", "min"]
    axes: tuple[int, ...]

    def value(self, *given: Value) -> Value:
        return Value(_short(given[0].shape, self.axes))


@dataclass(frozen=True, eq=False)
class Standardize(Operation):
    """(x - mean) / sqrt(var + eps) over some axes, in fp64, rounded once: the first part of layer and group norms."""

    axes: tuple[int, ...]
    eps: float

    def value(self, *given: Value) -> Value:
        _short(given[0].shape, self.axes)
        if not (0 < self.eps < 1e6 and single(self.eps)):
            raise ValueError(f"eps {self.eps}, not above 0 and below 1e6")
        return Value(given[0].shape)


@dataclass(frozen=True, eq=False)
class Softmax(Operation):
    """Softmax along an axis: exp(x - max) over its sum, in fp64, rounded once.

    Args:
        log: give its logarithm instead, (x - max) - ln(sum).
    """

    axis: int
    log: bool = False

    def value(self, *given: Value) -> Value:
        _short(given[0].shape, (axes_of(self.axis, given[0].shape),))
        return Value(given[0].shape)


def _short(shape: Shape, axes: tuple[int, ...]) -> Shape:
    if not axes or sorted(set(axes)) != list(axes) or not all(0 <= a < len(shape) for a in axes):
        raise ValueError(f"axes {short(axes)} of a value of shape {shape} do not exist or do not ascend")
    if math.prod(shape[axis] for axis in axes) > MOST_SUMS:
        raise ValueError(
            f"a reduction of {math.prod(shape[axis] for axis in axes):,} numbers along axes {axes}, more than {MOST_SUMS:,}"
        )
    return tuple(1 if axis in axes else size for axis, size in enumerate(shape))
