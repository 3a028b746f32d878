"""Rules for calls that compute numbers: functions, norms, softmax, pools."""

from __future__ import annotations

from math import prod
from typing import Any

import numpy as np
import torch
from torch import fx

from deploy.lowering.builder import Builder, Rule, is_number, numbers
from deploy.lowering.combining import combine, combined, operand
from deploy.lowering.modules import max_pool, pair
from deploy.lowering.rows import along, elementwise
from deploy.operations.functions import Combine, Function, Reduce, Softmax, Standardize
from deploy.operations.layers import Affine
from deploy.operations.pools import AdaptivePool, AveragePool
from models.graph.calls import values

aten = torch.ops.aten

POWERS = range(1, 9)
"""Whole powers that are products of the value with itself."""


def function(kind: str) -> Rule:
    def rule(builder: Builder, node: fx.Node) -> int:
        if values(node).get("decimals"):
            raise builder.refused("rounding to decimals")
        return elementwise(builder, builder.source(), Function, kind=kind)

    return rule


def clamp(builder: Builder, node: fx.Node) -> int:
    told = values(node)
    low, high = told.get("min", told.get("min_val")), told.get("max", told.get("max_val"))
    found, rank = builder.source(), len(builder.given())
    if all(end is None or is_number(end) for end in (low, high)):
        settings = (-np.inf if low is None else float(low), np.inf if high is None else float(high))
        return elementwise(builder, found, Function, kind="clamp", settings=settings)
    for kind, end in (("max", low), ("min", high)):
        if end is not None:
            found = combined(builder, kind, [found, operand(builder, end, rank)], f".{kind}")
    return found


def leaky(builder: Builder, node: fx.Node) -> int:
    slope = float(values(node)["negative_slope"])
    return elementwise(builder, builder.source(), Function, kind="leaky_relu", settings=(slope,))


def negative(builder: Builder, node: fx.Node) -> int:
    return builder.add(Affine, builder.source(), multiplier=numbers(-1.0))


def power(builder: Builder, node: fx.Node) -> int:
    told = {"exponent": 2, **values(node)}
    exponent = told["exponent"]
    if exponent == 0.5:
        return builder.add(Function, builder.source(), kind="sqrt")
    if exponent not in POWERS:
        rank = len(builder.given())
        return combined(builder, "pow", [operand(builder, told[name], rank) for name in ("self", "exponent")])
    found = builder.source()
    for number in range(int(exponent) - 1):
        found = builder.add(Combine, found, builder.source(), part=f".{number}", kind="mul")
    return found


def softmax(log: bool) -> Rule:
    def rule(builder: Builder, node: fx.Node) -> int:
        return softmaxed(builder, builder.source(), builder.axis(values(node)["dim"]), log)

    return rule


def softmaxed(builder: Builder, source: int, axis: int, log: bool = False, part: str = "") -> int:
    return along(builder, source, axis, lambda value, at: builder.add(Softmax, value, part=part, axis=at, log=log))


def layer_norm(builder: Builder, node: fx.Node) -> int:
    """Normalise over the last axes; the factors vary along one axis, or are constants over all of them."""
    told = values(node)
    found = builder.add(Standardize, _last_axes(builder, told), axes=(1,), eps=float(told["eps"]))
    return _with_factors(builder, told, found)


def rms_norm(builder: Builder, node: fx.Node) -> int:
    """Divide by the root of the mean square over the last axes."""
    told = values(node)
    table = _last_axes(builder, told)
    eps = torch.finfo(torch.float32).eps if told["eps"] is None else float(told["eps"])
    squares = builder.add(Combine, table, table, part=".squares", kind="mul")
    mean = builder.add(Reduce, squares, part=".mean", kind="mean", axes=(1,))
    shifted = builder.add(Affine, mean, part=".shift", shift=numbers(eps))
    root = builder.add(Function, shifted, part=".root", kind="sqrt")
    return _with_factors(builder, told, builder.add(Combine, table, root, part=".over", kind="div"))


def _last_axes(builder: Builder, told: dict[str, Any]) -> int:
    """Lay the axes that a norm works on into one, (rows, numbers)."""
    shape, count = builder.shape(builder.source()), len(told["normalized_shape"])
    return builder.reshaped(builder.source(), (prod(shape[:-count]), prod(shape[-count:])), ".rows")


def _with_factors(builder: Builder, told: dict[str, Any], found: int) -> int:
    """Give a table the axes of a norm's source, multiply by the norm's weight and add its bias."""
    shape = builder.shape(builder.source())
    found = builder.reshaped(found, shape, ".axes")
    for name, kind in (("weight", "mul"), ("bias", "add")):
        if told.get(name) is not None:
            found = combined(builder, kind, [found, operand(builder, told[name], len(shape))], f".{name}")
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


def pool_with_indices(builder: Builder, node: fx.Node) -> list[int]:
    """Pool values; programs have no pooling indices, so the list has one item."""
    return [called_pool(builder, node)]


def pool_along_channels(builder: Builder, node: fx.Node) -> int:
    """Add a mean of neighbouring channels, as F.local_response_norm computes it: avg_pool3d with windows of one row and column."""
    told = values(node)
    kernel, stride, padding = (list(told[name]) for name in ("kernel_size", "stride", "padding"))
    if kernel[1:] != [1, 1] or (stride or [1, 1, 1])[1:] != [1, 1] or padding[1:] != [0, 0]:
        raise builder.refused("windows of several rows or columns")
    shape = builder.shape(builder.source())
    table = builder.reshaped(builder.source(), (*shape[:2], prod(shape[2:])), ".table")
    found = builder.add(
        AveragePool, table, kernel=(kernel[0], 1), stride=((stride or kernel)[0], 1), padding=(padding[0], padding[0], 0, 0),
        ceil=told["ceil_mode"], counts_padding=told["count_include_pad"], divisor=told["divisor_override"],
    )  # fmt: skip
    return builder.reshaped(found, builder.given(), ".shape")


def adaptive_max(builder: Builder, node: fx.Node) -> list[int]:
    size = pair(values(node)["output_size"])
    return [builder.add(AdaptivePool, builder.source(), kind="max", size=size)]


CALLS: dict[Any, Rule] = {
    aten.add: combine("add"), aten.sub: combine("sub"), aten.rsub: combine("rsub"), aten.mul: combine("mul"),
    aten.div: combine("div"), aten.maximum: combine("max"), aten.minimum: combine("min"),
    **{getattr(aten, kind): function(kind) for kind in (
        "abs", "ceil", "erf", "exp", "expm1", "floor", "hardsigmoid", "hardswish", "log", "log1p", "mish", "relu", "round",
        "sigmoid", "sign", "silu", "sqrt", "tanh",
    )},
    aten.neg: negative, aten.square: power, aten.pow: power,
    aten.clamp: clamp, aten.clamp_min: clamp, aten.clamp_max: clamp, aten.hardtanh: clamp, aten.leaky_relu: leaky,
    aten.softmax: softmax(False), aten._softmax: softmax(False), aten.log_softmax: softmax(True),
    aten._log_softmax: softmax(True), aten.layer_norm: layer_norm, aten.rms_norm: rms_norm, aten.group_norm: group_norm,
    aten.avg_pool3d: pool_along_channels, aten.max_pool2d: called_pool, aten.adaptive_max_pool2d: adaptive_max,
    aten.max_pool2d_with_indices: pool_with_indices,
}  # fmt: skip
"""The rule of each operation; operations that move numbers are in moves.py."""
