"""Rules for calls that combine, compute or reduce numbers: sums, products, functions, means, norms, softmax."""

from __future__ import annotations

from typing import Any

import numpy as np
import torch
from torch import fx

from deploy.lowering.builder import Builder, Rule, is_number, numbers
from deploy.lowering.modules import max_pool, pair
from deploy.operations.functions import Combine, Constant, Function, Reduce, Softmax, Standardize
from deploy.operations.layers import Affine
from deploy.operations.places import AdaptivePool
from models.graph.calls import values

aten = torch.ops.aten

POWERS = range(1, 9)
"""Whole powers, which are products of the value with itself."""


def operand(builder: Builder, value: Any, rank: int) -> int | np.ndarray:
    """Return the number of a value, or a constant as an array of `rank` axes, without the batch axis."""
    if is_number(value):
        return numbers(float(value)).reshape((1,) * rank)
    if isinstance(value, fx.Node) and value in builder.held:
        tensor = builder.tensor(value)
        if tensor.ndim > rank + 1 or (tensor.ndim == rank + 1 and tensor.shape[0] != 1):
            raise builder.refused("it works across pictures")
        held = tensor[0] if tensor.ndim == rank + 1 else tensor
        return numbers(held).reshape((1,) * (rank - held.ndim) + tuple(held.shape))
    return builder.source(value)


def combine(kind: str) -> Rule:
    def rule(builder: Builder, node: fx.Node) -> int:
        told = values(node)
        if told.get("rounding_mode") is not None:
            raise builder.refused("a rounding mode")
        rank = len(builder.given())
        both = [operand(builder, told[name], rank) for name in ("self", "other")]
        place = 0 if kind == "rsub" else 1
        both[place] = _times(builder, both[place], told.get("alpha", 1))
        if kind == "rsub":
            both.reverse()
        return combined(builder, {"rsub": "sub"}.get(kind, kind), both)

    return rule


def _times(builder: Builder, value: int | np.ndarray, alpha: Any) -> int | np.ndarray:
    """Multiply an operand by the alpha of a sum or difference."""
    if not is_number(alpha):
        raise builder.refused("an alpha that is computed")
    if alpha == 1:
        return value
    if isinstance(value, int):
        return builder.add(Affine, value, part=".alpha", multiplier=numbers(float(alpha)))
    return value * np.float32(alpha)


def combined(builder: Builder, kind: str, both: list[Any], part: str = "") -> int:
    """Add the combination of two operands.

    Args:
        both: as `operand` returns them.
        part: as in Builder.add.
    """
    one, other = both
    sides = [(one, other, ("add", "sub", "mul")), (other, one, ("add", "mul"))]
    for value, held, kinds in sides:
        if isinstance(value, int) and isinstance(held, np.ndarray) and kind in kinds:
            found = _along(builder, kind, value, held, part)
            if found is not None:
                return found
    sources = [
        side if isinstance(side, int) else builder.add(Constant, part=f"{part}.constant{i or ''}", numbers=side)
        for i, side in enumerate(both)
    ]
    return builder.add(Combine, *sources, part=part, kind=kind)


def _along(builder: Builder, kind: str, source: int, held: np.ndarray, part: str) -> int | None:
    """Add a constant that varies along one axis at most as an affine operation; None for any other constant."""
    wide = [axis for axis, size in enumerate(held.shape) if size > 1]
    shape = builder.shape(source)
    if len(wide) > 1 or len(held.shape) != len(shape) or any(held.shape[a] != shape[a] for a in wide) or not shape:
        return None
    flat, axis = held.reshape(-1), wide[0] if wide else 0
    if kind == "mul":
        return builder.add(Affine, source, part=part, multiplier=flat, axis=axis)
    return builder.add(Affine, source, part=part, shift=flat if kind == "add" else -flat, axis=axis)


def function(kind: str) -> Rule:
    def rule(builder: Builder, node: fx.Node) -> int:
        return builder.add(Function, builder.source(), kind=kind)

    return rule


def clamp(builder: Builder, node: fx.Node) -> int:
    told = values(node)
    low, high = told.get("min", told.get("min_val")), told.get("max", told.get("max_val"))
    if not all(end is None or is_number(end) for end in (low, high)):
        raise builder.refused("a bound that is computed")
    settings = (-np.inf if low is None else float(low), np.inf if high is None else float(high))
    return builder.add(Function, builder.source(), kind="clamp", settings=settings)


def leaky(builder: Builder, node: fx.Node) -> int:
    slope = float(values(node)["negative_slope"])
    return builder.add(Function, builder.source(), kind="leaky_relu", settings=(slope,))


def negative(builder: Builder, node: fx.Node) -> int:
    return builder.add(Affine, builder.source(), multiplier=numbers(-1.0))


def power(builder: Builder, node: fx.Node) -> int:
    exponent = values(node).get("exponent", 2)
    if exponent == 0.5:
        return builder.add(Function, builder.source(), kind="sqrt")
    if exponent not in POWERS:
        raise builder.refused(f"a power other than 0.5 and {POWERS[0]} to {POWERS[-1]}")
    found = builder.source()
    for number in range(int(exponent) - 1):
        found = builder.add(Combine, found, builder.source(), part=f".{number}", kind="mul")
    return found


def reduce(kind: str) -> Rule:
    def rule(builder: Builder, node: fx.Node) -> int:
        told = values(node)
        source = builder.source()
        dims = told.get("dim")
        if dims is None or dims == []:
            raise builder.refused("it works across pictures")
        dims = [dims] if isinstance(dims, int) else dims
        axes = tuple(sorted(builder.axis(dim) for dim in dims))
        found = builder.add(Reduce, source, kind=kind, axes=axes)
        return builder.reshaped(found, builder.given(), ".shape")

    return rule


def length(builder: Builder, node: fx.Node) -> int:
    """Add an L2 norm along some axes, as used to normalise features."""
    told, source = values(node), builder.source()
    dims = told.get("dim")
    if told.get("ord", 2) != 2 or not dims or told.get("dtype") is not None:
        raise builder.refused("a norm other than the L2 norm along some axes")
    axes = tuple(sorted(builder.axis(dim) for dim in ([dims] if isinstance(dims, int) else dims)))
    squares = builder.add(Combine, source, source, part=".squares", kind="mul")
    total = builder.add(Reduce, squares, part=".sum", kind="sum", axes=axes)
    return builder.reshaped(builder.add(Function, total, kind="sqrt"), builder.given(), ".shape")


def softmax(log: bool) -> Rule:
    def rule(builder: Builder, node: fx.Node) -> int:
        return builder.add(Softmax, builder.source(), axis=builder.axis(values(node)["dim"]), log=log)

    return rule


def layer_norm(builder: Builder, node: fx.Node) -> int:
    """Normalise over the last axes; the factors vary along one axis, or are constants over all of them."""
    told = values(node)
    rank = len(builder.shape(builder.source()))
    count = len(told["normalized_shape"])
    axes = tuple(range(rank - count, rank))
    found = builder.add(Standardize, builder.source(), axes=axes, eps=float(told["eps"]))
    for name, kind in (("weight", "mul"), ("bias", "add")):
        if told.get(name) is not None:
            found = combined(builder, kind, [found, operand(builder, told[name], rank)])
    return found


def group_norm(builder: Builder, node: fx.Node) -> int:
    told = values(node)
    source = builder.source()
    shape, groups = builder.shape(source), told["num_groups"]
    split = builder.reshaped(source, (groups, int(np.prod(shape)) // groups), ".groups")
    found = builder.add(Standardize, split, axes=(1,), eps=float(told["eps"]))
    return factored(builder, told, builder.reshaped(found, shape, ".shape"))


def factored(builder: Builder, told: dict[str, Any], found: int) -> int:
    """Multiply by a norm's weight and add its bias, one of each for a channel."""
    for name, kind in (("weight", "mul"), ("bias", "add")):
        if told.get(name) is not None:
            held = numbers(builder.tensor(told[name])).reshape(-1, *(1,) * (len(builder.shape(found)) - 1))
            found = combined(builder, kind, [found, held])
    return found


class _Told:
    """A call's settings under the field names of nn.MaxPool2d."""

    def __init__(self, node: fx.Node) -> None:
        told = values(node)
        self.kernel_size, self.padding, self.dilation = told["kernel_size"], told["padding"], told["dilation"]
        self.stride, self.ceil_mode = told["stride"] or told["kernel_size"], told["ceil_mode"]


def called_pool(builder: Builder, node: fx.Node) -> int:
    return max_pool(builder, _Told(node))


def adaptive_max(builder: Builder, node: fx.Node) -> list[int]:
    """Pool values; programs have no pooling indices, so the list has one item."""
    size = pair(values(node)["output_size"])
    return [builder.add(AdaptivePool, builder.source(), kind="max", size=size)]


CALLS: dict[Any, Rule] = {
    aten.add: combine("add"), aten.sub: combine("sub"), aten.rsub: combine("rsub"), aten.mul: combine("mul"),
    aten.subtract: combine("sub"), aten.multiply: combine("mul"), aten.divide: combine("div"),
    aten.true_divide: combine("div"), aten.negative: negative, aten.absolute: function("abs"), aten.clip: clamp,
    aten.div: combine("div"), aten.maximum: combine("max"), aten.minimum: combine("min"),
    aten.relu: function("relu"), aten.abs: function("abs"), aten.exp: function("exp"), aten.sqrt: function("sqrt"),
    aten.sigmoid: function("sigmoid"), aten.tanh: function("tanh"), aten.silu: function("silu"),
    aten.hardswish: function("hardswish"), aten.hardsigmoid: function("hardsigmoid"), aten.mish: function("mish"),
    aten.neg: negative, aten.square: power, aten.pow: power,
    aten.clamp: clamp, aten.clamp_min: clamp, aten.clamp_max: clamp, aten.hardtanh: clamp, aten.leaky_relu: leaky,
    aten.mean: reduce("mean"), aten.sum: reduce("sum"), aten.amax: reduce("max"), aten.amin: reduce("min"),
    aten.linalg_vector_norm: length,
    aten.softmax: softmax(False), aten._softmax: softmax(False), aten.log_softmax: softmax(True),
    aten._log_softmax: softmax(True), aten.layer_norm: layer_norm, aten.group_norm: group_norm,
    aten.max_pool2d: called_pool, aten.adaptive_max_pool2d: adaptive_max,
}  # fmt: skip
"""The rule of each operation; operations that move numbers are in moves.py."""
