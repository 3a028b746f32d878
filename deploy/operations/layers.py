"""Layers, and the quantization of their inputs."""

from __future__ import annotations

from dataclasses import dataclass

from deploy.operations.base import FARTHEST, Matrix, Numbers, Operation, Value, axes_of, single, window, within
from models.layers.quantizers.base import Signs, Steps


@dataclass(frozen=True, eq=False)
class Quantize(Operation):
    """Codes of numbers. On Steps: clamp(round half to even(x * inverse), low, high), in fp32; on Signs: by comparison."""

    grid: Steps | Signs

    def value(self, *given: Value) -> Value:
        grid = self.grid
        if isinstance(grid, Steps):
            within(-(2**15), 2**15 - 1, low=grid.low, high=grid.high)
            if grid.low >= grid.high or not all(n > 0 and single(n) for n in (grid.inverse, grid.scale)):
                raise ValueError(
                    f"a grid from {grid.low} to {grid.high} in steps of {grid.scale}; it needs low < high and steps above 0"
                )
        elif grid.edge is not None and not (grid.edge > 0 and single(grid.edge)):
            raise ValueError(f"codes at +-{grid.edge}: the edge must be above 0")
        return Value(given[0].shape, grid)


@dataclass(frozen=True, eq=False)
class Decode(Operation):
    """The fp32 numbers of codes on Steps: fp32(code) * scale. Sums and concatenations read them; see quant.sums."""

    takes_codes = True

    def value(self, *given: Value) -> Value:
        if not isinstance(given[0].grid, Steps):
            raise ValueError("its source is not in codes on steps")
        return Value(given[0].shape)


@dataclass(frozen=True, eq=False)
class Convolution(Operation):
    """A 2d convolution of (C, H, W), numbers or codes, padded with 0.

    Args:
        padding: above, below, left, right.
    """

    matrix: Matrix
    stride: tuple[int, int] = (1, 1)
    padding: tuple[int, int, int, int] = (0, 0, 0, 0)
    dilation: tuple[int, int] = (1, 1)
    groups: int = 1
    takes_codes = True

    def value(self, *given: Value) -> Value:
        shape, weight = given[0].shape, self.matrix.weight.shape
        if len(weight) != 4:
            raise ValueError(f"a weight of shape {weight}, not (out, in / groups, rows, columns)")
        within(1, FARTHEST, groups=self.groups)
        rows, columns = window(shape, (weight[2], weight[3]), self.stride, self.padding, self.dilation)
        if shape[0] != weight[1] * self.groups or weight[0] % self.groups:
            raise ValueError(f"a weight of shape {weight} in {self.groups} groups on {shape[0]} channels does not fit")
        self.matrix.check(given[0])
        return Value((weight[0], rows, columns))


@dataclass(frozen=True, eq=False)
class Transposed(Operation):
    """A transposed 2d convolution of numbers (C, H, W); the weight is (in, out / groups, h, w), as torch stores it.

    Args:
        padding: rows and columns that are cut off on each side.
        more: rows and columns that are added below and right, torch's output_padding.
    """

    weight: Numbers
    shift: Numbers
    stride: tuple[int, int] = (1, 1)
    padding: tuple[int, int] = (0, 0)
    more: tuple[int, int] = (0, 0)
    dilation: tuple[int, int] = (1, 1)
    groups: int = 1

    def value(self, *given: Value) -> Value:
        shape, weight = given[0].shape, self.weight.shape
        within(1, FARTHEST, stride=self.stride, dilation=self.dilation, groups=self.groups)
        within(0, FARTHEST, padding=self.padding, more=self.more)
        if len(shape) != 3 or len(weight) != 4 or shape[0] != weight[0] or weight[0] % self.groups:
            raise ValueError(
                f"a weight of shape {weight} in {self.groups} groups on a value of shape {shape} does not fit"
            )
        rows, columns = (
            (shape[1 + i] - 1) * self.stride[i] - 2 * self.padding[i] + self.dilation[i] * (weight[2 + i] - 1)
            + self.more[i] + 1
            for i in range(2)
        )  # fmt: skip
        if min(rows, columns) < 1 or any(
            m >= max(s, d) for m, s, d in zip(self.more, self.stride, self.dilation, strict=True)
        ):
            raise ValueError(
                f"a transposed window that gives {rows}x{columns}, or too large an output padding {self.more}"
            )
        if self.shift.shape != (weight[1] * self.groups,):
            raise ValueError(f"its shift has shape {self.shift.shape}, not ({weight[1] * self.groups},)")
        return Value((weight[1] * self.groups, rows, columns))


@dataclass(frozen=True, eq=False)
class Linear(Operation):
    """A linear layer over the last axis, of numbers or codes."""

    matrix: Matrix
    takes_codes = True

    def value(self, *given: Value) -> Value:
        shape, weight = given[0].shape, self.matrix.weight.shape
        if not shape or len(weight) != 2 or shape[-1] != weight[1]:
            raise ValueError(f"a weight of shape {weight} on a value of shape {shape} does not fit")
        self.matrix.check(given[0])
        return Value((*shape[:-1], weight[0]))


@dataclass(frozen=True, eq=False)
class Affine(Operation):
    """x * multiplier + shift, each step rounded to fp32. Both vary along an axis or are one number, (1,); None: left out."""

    multiplier: Numbers | None = None
    shift: Numbers | None = None
    axis: int = 0

    def value(self, *given: Value) -> Value:
        shape = given[0].shape
        for part in (self.multiplier, self.shift):
            if part is not None and part.shape not in ((1,), (shape[axes_of(self.axis, shape)],)):
                raise ValueError(
                    f"numbers of shape {part.shape} along axis {self.axis} of a value of shape {shape} do not fit"
                )
        return Value(shape)
