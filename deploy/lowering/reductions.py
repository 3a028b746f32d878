"""Rules for calls that reduce numbers along axes: sums, means, extremes, norms, variances, sums up to each place."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import torch
from torch import fx

from deploy.lowering.builder import Builder, Rule, numbers
from deploy.lowering.combining import combined
from deploy.operations.functions import Combine, Constant, Function, Product, Reduce
from deploy.operations.layers import Affine
from models.graph.calls import values

aten = torch.ops.aten

Axes = tuple[int, ...]
LONGEST = 1024
"""Most places of a cumulative sum, whose matrix then takes 4 MB."""


def _axes(builder: Builder, node: fx.Node) -> Axes:
    """Return the axes that a call reduces.

    Raises:
        UserError: exit 2 if the pictures are among them.
    """
    dims = values(node).get("dim")
    if dims is None or dims == []:
        raise builder.refused("it works across pictures")
    return tuple(sorted(builder.axis(dim) for dim in ([dims] if isinstance(dims, int) else dims)))


def reduce(kind: str) -> Rule:
    def rule(builder: Builder, node: fx.Node) -> int:
        axes = _axes(builder, node)
        return _shaped(builder, node, builder.add(Reduce, builder.source(), kind=kind, axes=axes), axes)

    return rule


def extreme(kind: str) -> Rule:
    """Return the rule for torch.max and torch.min along an axis. Capture makes maximum and minimum of those of two values."""

    def rule(builder: Builder, node: fx.Node) -> list[int]:
        axes = _axes(builder, node)
        found = builder.add(Reduce, builder.source(), kind=kind, axes=axes)
        return [_shaped(builder, node, found, axes)]  # programs have no indices, so the list has one item

    return rule


def _shaped(builder: Builder, node: fx.Node, found: int, axes: Axes, part: str = "") -> int:
    """Return a reduced value without its reduced axes, unless the call keeps them."""
    if values(node).get("keepdim"):
        return found
    shape = builder.shape(found)
    return builder.reshaped(found, tuple(n for axis, n in enumerate(shape) if axis not in axes), f"{part}.shape")


def norm(builder: Builder, node: fx.Node) -> int:
    """Add (sum |x|^p)^(1/p) along some axes, or the largest |x|."""
    told, axes = values(node), _axes(builder, node)
    order = float(told["ord"])
    if told.get("dtype") is not None or order <= 0:
        raise builder.refused("a norm in another type, or of an order that is not above 0")
    source, rank = builder.source(), len(builder.shape(builder.source()))
    if order == 2:
        power = builder.add(Combine, source, source, part=".squares", kind="mul")
    else:
        power = builder.add(Function, source, part=".size", kind="abs")
    if order not in (1, 2, math.inf):
        power = combined(builder, "pow", [power, numbers(order).reshape((1,) * rank)], ".power")
    found = builder.add(Reduce, power, part=".sum", kind="max" if order == math.inf else "sum", axes=axes)
    if order == 2:
        found = builder.add(Function, found, kind="sqrt")
    elif order not in (1, math.inf):
        found = combined(builder, "pow", [found, numbers(1 / order).reshape((1,) * rank)])
    return _shaped(builder, node, found, axes)


def variance(root: bool, with_mean: bool = False) -> Rule:
    """Return the rule for a variance, or its root, along some axes; `with_mean`: the mean is the call's second value."""

    def rule(builder: Builder, node: fx.Node) -> int | list[int]:
        told, axes, source = values(node), _axes(builder, node), builder.source()
        count = math.prod(builder.shape(source)[axis] for axis in axes)
        less = told["correction"] if "correction" in told else int(told["unbiased"])
        left = count - (1 if less is None else less)
        if left <= 0:
            raise builder.refused(f"a variance of {count} numbers")
        mean = builder.add(Reduce, source, part=".mean", kind="mean", axes=axes)
        apart = combined(builder, "sub", [source, mean], ".apart")
        squares = builder.add(Combine, apart, apart, part=".squares", kind="mul")
        found = builder.add(Reduce, squares, part=".spread", kind="mean", axes=axes)
        found = builder.add(Affine, found, part=".var", multiplier=numbers(count / left))
        found = builder.add(Function, found, part=".root", kind="sqrt") if root else found
        both = [_shaped(builder, node, each, axes, part) for each, part in ((found, ".var"), (mean, ".mean"))]
        return both if with_mean else both[0]

    return rule


def logsumexp(builder: Builder, node: fx.Node) -> int:
    """Add max + log(sum(exp(x - max)))."""
    axes, source = _axes(builder, node), builder.source()
    most = builder.add(Reduce, source, part=".max", kind="max", axes=axes)
    power = builder.add(Function, combined(builder, "sub", [source, most], ".apart"), part=".exp", kind="exp")
    total = builder.add(Reduce, power, part=".sum", kind="sum", axes=axes)
    found = builder.add(Combine, builder.add(Function, total, part=".log", kind="log"), most, kind="add")
    return _shaped(builder, node, found, axes)


def cumsum(builder: Builder, node: fx.Node) -> int:
    """Add the sums up to each place of an axis: a product with a triangular matrix of ones."""
    (axis,), shape = _axes(builder, node), builder.shape(builder.source())
    size = shape[axis]
    if size > LONGEST:
        raise builder.refused(f"sums up to each of {size:,} places, more than {LONGEST:,}")
    lines = builder.reshaped(builder.source(), (math.prod(shape[:axis]), size, math.prod(shape[axis + 1 :])), ".lines")
    ones = builder.add(Constant, part=".ones", numbers=np.tril(np.ones((1, size, size), np.float32)))
    return builder.reshaped(builder.add(Product, ones, lines), shape, ".shape")


REDUCTIONS: dict[Any, Rule] = {
    aten.mean: reduce("mean"), aten.sum: reduce("sum"), aten.amax: reduce("max"), aten.amin: reduce("min"),
    aten.max: extreme("max"), aten.min: extreme("min"), aten.linalg_vector_norm: norm, aten.logsumexp: logsumexp,
    aten.var: variance(False), aten.std: variance(True), aten.var_mean: variance(False, with_mean=True),
    aten.std_mean: variance(True, with_mean=True), aten.cumsum: cumsum,
}  # fmt: skip
