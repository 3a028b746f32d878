"""Rules for calls that combine two values, or a value and a constant: sums, differences, products, quotients, extremes."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, cast

import numpy as np
from torch import Tensor, fx

from deploy.lowering.builder import Builder, Rule, is_number, numbers
from deploy.lowering.masks import LOWEST, only_hides
from deploy.lowering.rows import along
from deploy.operations.base import Numbers, Shape
from deploy.operations.functions import Combine, Constant
from deploy.operations.layers import Affine
from models.graph.calls import is_truth, values

Operand = int | Numbers
"""The number of a value, or a constant of its rank."""
MOST_BROADCAST = 3
"""The most axes of values that engines combine with broadcasting."""


def operand(builder: Builder, value: Any, rank: int, hides: bool = False) -> Operand:
    """Return the number of a value, or a constant as an array of `rank` axes, without the batch axis.

    Args:
        hides: whether -inf becomes masks.LOWEST, if softmax alone reads the result of the current node.
    """
    hides = hides and only_hides(cast(fx.Node, builder.node))
    if hides and value == -np.inf:
        value = LOWEST
    if is_number(value):
        return numbers(float(value)).reshape((1,) * rank)
    if isinstance(value, fx.Node) and value in builder.held:
        held = laid(builder, builder.tensor(value), rank)
        return numbers(held.masked_fill(held == -np.inf, LOWEST) if hides else held)
    return builder.source(value)


def laid(builder: Builder, tensor: Tensor, rank: int) -> Tensor:
    """Return a tensor of the network with `rank` axes, without the batch axis."""
    if tensor.ndim > rank + 1 or (tensor.ndim == rank + 1 and tensor.shape[0] != 1):
        raise builder.refused("it works across pictures")
    held = tensor[0] if tensor.ndim == rank + 1 else tensor
    return held.reshape((1,) * (rank - held.ndim) + tuple(held.shape))


def combine(kind: str) -> Rule:
    def rule(builder: Builder, node: fx.Node) -> int:
        told = values(node)
        if told.get("rounding_mode") is not None:
            raise builder.refused("a rounding mode")
        rank = len(builder.given())
        both = [operand(builder, told[name], rank, hides=kind == "add") for name in ("self", "other")]
        place = 0 if kind == "rsub" else 1
        both[place] = _times(builder, both[place], told.get("alpha", 1))
        if kind == "rsub":
            both.reverse()
        if kind == "add" and is_truth(node):
            return combined(builder, "max", both)  # PyTorch's sum of two truths is `or`
        return combined(builder, {"rsub": "sub"}.get(kind, kind), both)

    return rule


def _times(builder: Builder, value: Operand, alpha: Any) -> Operand:
    """Multiply an operand by the alpha of a sum or difference."""
    if not is_number(alpha):
        raise builder.refused("an alpha that is computed")
    if alpha == 1:
        return value
    if isinstance(value, int):
        return builder.add(Affine, value, part=".alpha", multiplier=numbers(float(alpha)))
    return value * np.float32(alpha)


def combined(builder: Builder, kind: str, both: Sequence[Operand], part: str = "") -> int:
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
    shapes = [builder.shape(source) for source in sources]
    if len(shapes[0]) > MOST_BROADCAST and shapes[0] != shapes[1]:
        sources = [
            builder.reshaped(source, flat, f"{part}.flat{i or ''}")
            for i, (source, flat) in enumerate(zip(sources, flattened(*shapes), strict=True))
        ]
    found = builder.add(Combine, *sources, part=part, kind=kind)
    return builder.reshaped(found, tuple(map(max, *shapes)), f"{part}.shape")


def opposite(builder: Builder, truth: int) -> int:
    """Add 1 where a truth is 0, else 0."""
    return combined(builder, "eq", [truth, numbers(0.0).reshape((1,) * len(builder.shape(truth)))], ".not")


def flattened(one: Shape, other: Shape) -> tuple[Shape, Shape]:
    """Return the shapes of two values that broadcast, with neighbouring axes joined that broadcast in the same way."""
    found: list[tuple[int, int]] = []
    for a, b in zip(one, other, strict=True):
        if found and (a == b) == (found[-1][0] == found[-1][1]) and (a < b) == (found[-1][0] < found[-1][1]):
            found[-1] = (found[-1][0] * a, found[-1][1] * b)
        else:
            found.append((a, b))
    return tuple(a for a, _ in found), tuple(b for _, b in found)


def _along(builder: Builder, kind: str, source: int, held: np.ndarray, part: str) -> int | None:
    """Add a constant that varies along one axis at most as an affine operation; None for any other constant."""
    wide = [axis for axis, size in enumerate(held.shape) if size > 1]
    shape = builder.shape(source)
    if len(wide) > 1 or len(held.shape) != len(shape) or any(held.shape[a] != shape[a] for a in wide) or not shape:
        return None
    flat, axis = held.reshape(-1), wide[0] if wide else 0
    settings = {"multiplier": flat} if kind == "mul" else {"shift": flat if kind == "add" else -flat}
    return along(builder, source, axis, lambda value, at: builder.add(Affine, value, part=part, axis=at, **settings))
