"""The base of all operations: values and their shapes, arrays of numbers and of codes."""

from __future__ import annotations

from dataclasses import dataclass, field
from reprlib import Repr
from typing import Annotated, ClassVar, NamedTuple

import numpy as np
from numpy.typing import NDArray

from models.layers.quantizers.base import Signs, Steps

Shape = tuple[int, ...]
"""Of a value, without the batch axis."""
Numbers = Annotated[NDArray[np.float32], "numbers"]
Integers = Annotated[NDArray[np.int32], "integers"]

_SHORT = Repr()
_SHORT.maxlevel, _SHORT.maxdict, _SHORT.maxother = 2, 4, 60


def short(value: object) -> str:
    """Return a value from an untrusted file, shortened to fit a message."""
    return _SHORT.repr(value)[:200]


MOST = 2**28
"""Limit of the numbers in one value of one picture: 1 GiB in fp32."""
MOST_SUMS = 2**20
"""Limit of the numbers in one sum, and of the windows of an adaptive pool."""
LARGEST_BIAS = 2**30
"""On the grid of a layer's sums. A sum of codes is smaller, and both together fit int32."""
MOST_AXES = 8
FARTHEST = 2**15
"""The largest stride, padding, kernel or dilation."""


def fits_a_byte(grid: Steps | Signs) -> bool:
    """Return whether all codes, counted from the lowest, fit a byte and 0 is among them, as int8 engines need."""
    return isinstance(grid, Signs) or grid.low <= 0 <= grid.high <= grid.low + 255


class Value(NamedTuple):
    """The type of an operation's result.

    Args:
        grid: of a value in codes; None: the value holds fp32 numbers.
    """

    shape: Shape
    grid: Steps | Signs | None = None

    @property
    def largest(self) -> int:
        """The largest |code|; 0 for numbers."""
        if isinstance(self.grid, Steps):
            return max(abs(self.grid.low), abs(self.grid.high))
        return 0 if self.grid is None else 1


@dataclass(frozen=True, eq=False)
class Codes:
    """Integers of few levels: low + step * q with q from 0 to levels - 1. The packed file stores q.

    Args:
        values: the integers, (out, ...), int16.
        low: one for each row, (out,), or one for all, (1,).
    """

    values: NDArray[np.int16]
    levels: int
    step: int
    low: Integers

    @property
    def shape(self) -> Shape:
        return self.values.shape


@dataclass(frozen=True, eq=False)
class Matrix:
    """The weight, scale and bias of a layer. The layer gives fp32(sum + bias) * scale + shift, in this order.

    Args:
        weight: (out, in / groups, ...).
        scale: (out,); None: 1.
        bias: (out,), on the grid of the sums, for an input in codes; None: 0.
        shift: (out,), the part of the bias that is not on that grid; None: 0.
    """

    weight: Codes | Numbers
    scale: Numbers | None = None
    bias: Integers | None = None
    shift: Numbers | None = None

    def check(self, given: Value) -> None:
        """Check that scale, bias and shift have a number for each row, and that int32 holds every sum.

        Raises:
            ValueError: naming what is wrong.
        """
        rows = self.weight.shape[0]
        for name in ("scale", "bias", "shift"):
            part = getattr(self, name)
            if part is not None and part.shape != (rows,):
                raise ValueError(f"its {name} has shape {part.shape}, not ({rows},)")
        if not self.whole(given):
            if self.bias is not None:
                raise ValueError("it has an integer bias, but its sums are not integers")
            return
        if self.reach(given) >= 2**31:
            raise ValueError(f"its sums reach {self.reach(given):,}, and int32 holds less than {2**31:,}")

    def whole(self, given: Value) -> bool:
        """Return whether the sums are integers."""
        return given.grid is not None and isinstance(self.weight, Codes)

    def reach(self, given: Value) -> int:
        """Return the largest possible |sum + bias| of codes."""
        assert isinstance(self.weight, Codes)
        rows = np.abs(self.weight.values.astype(np.int64)).reshape(len(self.weight.values), -1).sum(1) * given.largest
        rows = rows if self.bias is None else rows + np.abs(self.bias.astype(np.int64))
        return int(rows.max(initial=0))


@dataclass(frozen=True, eq=False)
class Operation:
    """One step of a program.

    Args:
        sources: the numbers of the values that it reads: 0 is the picture, i + 1 the result of operation i.
        name: the module or call that it was made from.
    """

    sources: tuple[int, ...] = field(kw_only=True)
    name: str = field(kw_only=True)
    reads: ClassVar[int | None] = 1
    """The number of sources; None: 1 or more."""
    takes_codes: ClassVar[bool] = False
    """Whether a source may be in codes."""

    def value(self, *given: Value) -> Value:
        """Return the shape and grid of the result.

        Raises:
            ValueError: for sources or settings that are not allowed.
        """
        raise NotImplementedError


def within(low: int, high: int, /, **numbers: int | tuple[int, ...]) -> None:
    """Refuse settings out of range, by name.

    Raises:
        ValueError: naming the first.
    """
    for name, number in numbers.items():
        each = number if isinstance(number, tuple) else (number,)
        if any(not low <= n <= high for n in each):
            raise ValueError(f"its {name.replace('_', ' ')} is {short(number)}, not from {low} to {high}")


def single(number: float) -> bool:
    """Return whether a number is finite in fp32 and does not round to 0 unless it is 0."""
    with np.errstate(over="ignore", under="ignore"):
        found = np.float32(number)
    return bool(np.isfinite(found)) and (found != 0) == (number != 0)


def axes_of(axis: int, shape: Shape) -> int:
    """Check an axis; 0 is the first axis after the batch.

    Raises:
        ValueError: if the shape has no such axis.
    """
    if not 0 <= axis < len(shape):
        raise ValueError(f"axis {axis} of a value of shape {shape} does not exist")
    return axis


def window(shape: Shape, kernel: tuple[int, int], stride: tuple[int, int], padding: tuple[int, int, int, int],
           dilation: tuple[int, int] = (1, 1), ceil: bool = False) -> tuple[int, int]:  # fmt: skip
    """Return the rows and columns of a sliding window's result on (C, H, W).

    Args:
        padding: above, below, left, right.
        ceil: torch's ceil_mode: the last window may reach beyond the end, unless it begins in the padding there.

    Raises:
        ValueError: if the shape does not have three axes or the window does not fit.
    """
    if len(shape) != 3:
        raise ValueError(f"a window over a value of shape {shape}, not (channels, rows, columns)")
    within(1, FARTHEST, kernel=kernel, stride=stride, dilation=dilation)
    within(0, FARTHEST, padding=padding)
    found = []
    for place in range(2):
        before, after = padding[2 * place], padding[2 * place + 1]
        room = shape[1 + place] + before + after - dilation[place] * (kernel[place] - 1) - 1
        count = (-(-room // stride[place]) if ceil else room // stride[place]) + 1
        if ceil and (count - 1) * stride[place] >= shape[1 + place] + before:
            count -= 1
        if count < 1:
            raise ValueError(f"a window of {kernel} on a value of shape {shape} gives no rows or columns")
        found.append(count)
    if shape[0] * (shape[1] + sum(padding[:2])) * (shape[2] + sum(padding[2:])) > MOST:
        raise ValueError(f"a padding of {padding} around a value of shape {shape} gives more than {MOST:,} numbers")
    return found[0], found[1]


def padding_of_windows(
    sides: Shape, windows: Shape, kernel: tuple[int, int], stride: tuple[int, int], padding: tuple[int, int, int, int],
    dilation: tuple[int, int] = (1, 1),
) -> tuple[int, int, int, int]:  # fmt: skip
    """Return how far windows reach beyond the input: above, below, left, right. With ceil it may exceed `padding`."""
    ends = [
        max(0, (windows[i] - 1) * stride[i] + dilation[i] * (kernel[i] - 1) + 1 - padding[2 * i] - sides[i])
        for i in range(2)
    ]
    return padding[0], ends[0], padding[2], ends[1]
