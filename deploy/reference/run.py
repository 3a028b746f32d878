"""Run a program on pictures by its definition. This executor is slow; tests compare the fast ones with it.

Layers on codes add integers, without rounding. Their fp32 output and every operation between layers is a sequence of fp32
operations in the order of deploy.operations. Layers whose input or weight is not in codes add in fp64 and round once.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import partial
from typing import Any

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional as F

from deploy.operations import functions as of_numbers, layers, places, pools
from deploy.operations.base import Codes, Matrix, Operation, Value, padding_of_windows
from deploy.program import Program
from deploy.reference import sums
from deploy.reference.functions import exp, function, log_finite, power
from models.layers.quantizers.base import Signs, Steps

EXACT = 2**24
"""Sums of integers are exact in fp32 while they stay below it."""


@torch.no_grad()
def run(program: Program, x: Tensor, seen: Callable[[int, Tensor], None] | None = None) -> Tensor:
    """Return the answer, (N, *program.answer) fp32, for normalised pictures, (N, *program.picture) fp32.

    Args:
        seen: called with the number and the numbers of each value; codes are integers in fp32.

    Raises:
        ValueError: as Program.pictures.
    """
    x = program.pictures(x)
    with subnormals():
        return _run(program, x, seen) if len(x) else x.new_zeros(0, *program.answer)


@contextmanager
def subnormals() -> Iterator[None]:
    """Keep subnormal numbers, whatever the caller set by torch.set_flush_denormal; restore its setting at the end."""
    flushed = (torch.tensor([1e-40]) * 1).item() == 0
    torch.set_flush_denormal(False)
    try:
        yield
    finally:
        torch.set_flush_denormal(flushed)


def _run(program: Program, x: Tensor, seen: Callable[[int, Tensor], None] | None) -> Tensor:
    last = {source: number for number, operation in enumerate(program.operations) for source in operation.sources}
    held: dict[int, Tensor] = {0: x}
    for number, operation in enumerate(program.operations):
        given = [held[source] for source in operation.sources]
        kinds = [program.values[source] for source in operation.sources]
        held[number + 1] = RULES[type(operation)](operation, kinds, program.values[number + 1], len(x), *given)
        if seen:
            seen(number + 1, held[number + 1])
        for source in {*operation.sources}:
            if last[source] == number:
                del held[source]
    return held[len(program.operations)]


def _compared(compare: Callable[[Tensor, Tensor], Tensor], one: Tensor, other: Tensor) -> Tensor:
    return compare(one, other).float()


COMBINE: dict[str, Callable[[Tensor, Tensor], Tensor]] = {
    "add": torch.add, "sub": torch.sub, "mul": torch.mul, "div": torch.div, "max": torch.maximum, "min": torch.minimum,
    "pow": lambda x, y: power(x.double(), y.double()).float(), "keep": lambda x, kept: torch.where(kept != 0, x, 0.0),
    **{kind: partial(_compared, getattr(torch, kind)) for kind in ("eq", "ne", "gt", "ge", "lt", "le")},
}  # fmt: skip

Rule = Callable[..., Tensor]
RULES: dict[type[Operation], Rule] = {}


def _rule(kind: type[Operation]) -> Callable[[Rule], Rule]:
    def enter(rule: Rule) -> Rule:
        RULES[kind] = rule
        return rule

    return enter


@_rule(layers.Quantize)
def _quantize(op: layers.Quantize, kinds: Any, value: Value, count: int, x: Tensor) -> Tensor:
    return codes_of(x, op.grid)


@_rule(layers.Decode)
def _decode(op: layers.Decode, kinds: list[Value], value: Value, count: int, x: Tensor) -> Tensor:
    return numbers_of(x, kinds[0].grid)


def numbers_of(codes: Tensor, grid: Steps | Signs | None) -> Tensor:
    """Return the fp32 numbers of codes on steps."""
    assert isinstance(grid, Steps)
    return codes.float() * torch.tensor(grid.scale, dtype=torch.float32)


def codes_of(x: Tensor, grid: Steps | Signs) -> Tensor:
    """Return the codes of fp32 numbers, as fp32."""
    if isinstance(grid, Steps):
        return (x * torch.tensor(grid.inverse, dtype=torch.float32)).round_().clamp_(grid.low, grid.high)
    if grid.edge is None:
        return torch.where(x >= 0, 1.0, -1.0)
    edge = torch.tensor(grid.edge, dtype=torch.float32)
    return (x > edge).float() - (x < -edge).float()


def tensor(part: Any) -> Tensor:
    """Return a tensor with a copy of a stored array."""
    return torch.from_numpy(np.array(part))


def _finished(sums: Tensor, matrix: Matrix, whole: bool, behind: int) -> Tensor:
    """Return fp32(sum + bias) * scale + shift of sums, (N, ..., out, *`behind` axes)."""

    def along(part: Any) -> Tensor:
        return tensor(part).reshape(-1, *(1,) * behind)

    if matrix.bias is not None:
        sums = sums.double() + along(matrix.bias) if whole else sums + along(matrix.bias)
    found = sums.float()
    if matrix.scale is not None:
        found = found * along(matrix.scale)
    return found if matrix.shift is None else found + along(matrix.shift)


def _summing(matrix: Matrix, kind: Value) -> tuple[torch.dtype, Tensor]:
    """Return the type to sum in, fp32 if a layer's sums are exact there, else fp64; and the weight in this type."""
    exact = matrix.whole(kind) and matrix.reach(kind) < EXACT
    arithmetic = torch.float32 if exact else torch.float64
    weight = matrix.weight.values if isinstance(matrix.weight, Codes) else matrix.weight
    return arithmetic, tensor(weight).to(arithmetic)


@_rule(layers.Convolution)
def _convolution(op: layers.Convolution, kinds: list[Value], value: Value, count: int, x: Tensor) -> Tensor:
    arithmetic, weight = _summing(op.matrix, kinds[0])
    above, below, left, right = op.padding
    x, around = x.to(arithmetic), (above, left)
    if (above, left) != (below, right):
        x, around = F.pad(x, (left, right, above, below)), (0, 0)
    found = F.conv2d(x, weight, None, op.stride, around, op.dilation, op.groups)
    return _finished(found, op.matrix, op.matrix.whole(kinds[0]), 2)


@_rule(layers.Linear)
def _linear(op: layers.Linear, kinds: list[Value], value: Value, count: int, x: Tensor) -> Tensor:
    arithmetic, weight = _summing(op.matrix, kinds[0])
    return _finished(F.linear(x.to(arithmetic), weight), op.matrix, op.matrix.whole(kinds[0]), 0)


@_rule(layers.Transposed)
def _transposed(op: layers.Transposed, kinds: Any, value: Value, count: int, x: Tensor) -> Tensor:
    weight = tensor(op.weight).double()
    found = F.conv_transpose2d(x.double(), weight, None, op.stride, op.padding, op.more, op.groups, op.dilation)
    return found.float() + tensor(op.shift)[:, None, None]


@_rule(layers.Affine)
def _affine(op: layers.Affine, kinds: list[Value], value: Value, count: int, x: Tensor) -> Tensor:
    behind = len(value.shape) - op.axis - 1
    for part, apply in ((op.multiplier, torch.mul), (op.shift, torch.add)):
        if part is not None:
            x = apply(x, tensor(part).reshape(-1, *(1,) * behind))
    return x


@_rule(of_numbers.Function)
def _function(op: of_numbers.Function, kinds: Any, value: Value, count: int, x: Tensor) -> Tensor:
    return function(op.kind, x, op.settings)


@_rule(of_numbers.Slopes)
def _slopes(op: of_numbers.Slopes, kinds: Any, value: Value, count: int, x: Tensor) -> Tensor:
    slope = tensor(op.slope).reshape(-1, *(1,) * (len(value.shape) - 1))
    return torch.where(x > 0, x, x * slope)


@_rule(of_numbers.Combine)
def _combine(op: of_numbers.Combine, kinds: Any, value: Value, count: int, one: Tensor, other: Tensor) -> Tensor:
    return COMBINE[op.kind](one, other)


@_rule(of_numbers.Product)
def _product(op: of_numbers.Product, kinds: Any, value: Value, count: int, one: Tensor, other: Tensor) -> Tensor:
    return (one.double() @ other.double()).float()


@_rule(of_numbers.Constant)
def _constant(op: of_numbers.Constant, kinds: Any, value: Value, count: int) -> Tensor:
    held = tensor(op.numbers)
    return held.expand(count, *held.shape)


@_rule(of_numbers.Reduce)
def _reduce(op: of_numbers.Reduce, kinds: list[Value], value: Value, count: int, x: Tensor) -> Tensor:
    axes = tuple(axis + 1 for axis in op.axes)
    if op.kind in ("max", "min"):
        return x.amax(axes, keepdim=True) if op.kind == "max" else x.amin(axes, keepdim=True)
    total = sums.summed(x.double(), axes)
    return (total / (x.numel() // total.numel()) if op.kind == "mean" else total).float()


@_rule(of_numbers.Standardize)
def _standardize(op: of_numbers.Standardize, kinds: Any, value: Value, count: int, x: Tensor) -> Tensor:
    axes = tuple(axis + 1 for axis in op.axes)
    wide = x.double()
    total = sums.summed(wide, axes)
    many = x.numel() // total.numel()
    apart = wide - total / many
    var = sums.summed(apart * apart, axes) / many
    return (apart / (var + op.eps).sqrt()).float()


@_rule(of_numbers.Softmax)
def _softmax(op: of_numbers.Softmax, kinds: Any, value: Value, count: int, x: Tensor) -> Tensor:
    axis = op.axis + 1
    apart = (x - x.amax(axis, keepdim=True)).double()
    power = exp(apart)
    total = sums.summed(power, (axis,))
    return (apart - log_finite(total) if op.log else power / total).float()


@_rule(pools.MaxPool)
def _max_pool(op: pools.MaxPool, kinds: Any, value: Value, count: int, x: Tensor) -> Tensor:
    above, below, left, right = padding_of_windows(
        x.shape[2:], value.shape[1:], op.kernel, op.stride, op.padding, op.dilation
    )
    x = F.pad(x, (left, right, above, below), value=-torch.inf) if any((above, below, left, right)) else x
    return F.max_pool2d(x, op.kernel, op.stride, 0, op.dilation)


@_rule(pools.AveragePool)
def _average_pool(op: pools.AveragePool, kinds: Any, value: Value, count: int, x: Tensor) -> Tensor:
    return sums.average_pool(x, op, *value.shape[1:])


@_rule(pools.AdaptivePool)
def _adaptive_pool(op: pools.AdaptivePool, kinds: Any, value: Value, count: int, x: Tensor) -> Tensor:
    return sums.adaptive_pool(x, op)


@_rule(places.Concatenate)
def _concatenate(op: places.Concatenate, kinds: Any, value: Value, count: int, *given: Tensor) -> Tensor:
    return torch.cat(given, op.axis + 1)


@_rule(places.Slice)
def _slice(op: places.Slice, kinds: Any, value: Value, count: int, x: Tensor) -> Tensor:
    return x[(slice(None),) * (op.axis + 1) + (slice(op.start, op.stop, op.step),)]


@_rule(places.Take)
def _take(op: places.Take, kinds: Any, value: Value, count: int, x: Tensor) -> Tensor:
    return x.index_select(op.axis + 1, tensor(op.places))


@_rule(places.Pad)
def _pad(op: places.Pad, kinds: Any, value: Value, count: int, x: Tensor) -> Tensor:
    above, below, left, right = op.sides
    if op.kind == "constant":
        return F.pad(x, (left, right, above, below, *op.channels), value=op.fill)
    return F.pad(x, (left, right, above, below), mode=op.kind)


@_rule(places.Reshape)
def _reshape(op: places.Reshape, kinds: Any, value: Value, count: int, x: Tensor) -> Tensor:
    return x.reshape(count, *op.shape)


@_rule(places.Permute)
def _permute(op: places.Permute, kinds: Any, value: Value, count: int, x: Tensor) -> Tensor:
    return x.permute(0, *(axis + 1 for axis in op.axes))


@_rule(places.Upsample)
def _upsample(op: places.Upsample, kinds: list[Value], value: Value, count: int, x: Tensor) -> Tensor:
    if op.kind == "nearest":
        rows, columns = (places.nearest(new, old) for new, old in zip(op.size, kinds[0].shape[1:], strict=True))
        return x[:, :, rows][:, :, :, columns]
    found = x.double()
    for axis in (3, 2):  # the engine adds in this order, too
        first, second, share = places.between(op.size[axis - 2], x.shape[axis], op.align_corners)
        shares = torch.from_numpy(share).reshape(-1, *(1,) * (3 - axis))
        found = (1 - shares) * found.index_select(axis, torch.from_numpy(first)) + shares * found.index_select(
            axis, torch.from_numpy(second)
        )
    return found.float()
