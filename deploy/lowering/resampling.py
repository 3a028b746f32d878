"""Rules for calls that resize rows and columns: nearest, bilinear and bicubic upsampling and downsampling.

Operation Upsample computes the calls whose sizes determine the result. Of others, the call itself shows on made-up
numbers which places it takes, or with which weights it adds them.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, fx
from torch.nn import functional as F

from deploy.lowering.builder import Builder, Rule
from deploy.lowering.picking import taken
from deploy.operations.functions import Constant, Product
from deploy.operations.places import Upsample, nearest
from models.graph.calls import values

aten = torch.ops.aten


def upsample(kind: str) -> Rule:
    """Return the rule for a call on maps: kind nearest or bilinear."""

    def rule(builder: Builder, node: fx.Node) -> int:
        shape, align = builder.given(), bool(values(node).get("align_corners"))
        if not _by_sizes(kind, node, builder.shape(builder.source()), shape, align):
            return picked(builder, node) if kind == "nearest" else weighted(builder, node)
        return builder.add(Upsample, builder.source(), kind=kind, size=shape[1:], align_corners=align)

    return rule


def _by_sizes(kind: str, node: fx.Node, before: Any, after: Any, align: bool) -> bool:
    """Return whether the sizes before and after determine the call's result; its scale factor may differ from their ratio."""
    x = torch.arange(before[1] * before[2]).reshape(1, 1, *before[1:]).double()
    found = _called(node, x)
    if kind == "nearest":
        rows, columns = (nearest(new, old) for new, old in zip(after[1:], before[1:], strict=True))
        return torch.equal(found, x[:, :, rows][:, :, :, columns])
    return torch.allclose(found, F.interpolate(x, after[1:], mode=kind, align_corners=align))


def _called(node: fx.Node, x: Tensor) -> Tensor:
    """Return what a call with a node's settings gives for another value."""
    call: Any = node.target
    return call(x, *node.args[1:], **node.kwargs)


def picked(builder: Builder, node: fx.Node) -> int:
    """Take the places that the call takes along each axis."""
    found = builder.source()
    for axis, size in enumerate(builder.shape(found)[1:], 1):
        along = torch.arange(size).double().reshape(-1, *(1,) * (len(builder.given()) - 1 - axis))
        places = _called(node, along.expand(1, 1, *builder.shape(builder.source())[1:]))[0, 0]
        found = taken(builder, found, axis, _line(places, axis - 1).numpy(), f".{axis}")
    return found


def weighted(builder: Builder, node: fx.Node) -> int:
    """Add the numbers along each axis with the call's weights, as a product with a matrix."""
    source = builder.source()
    channels, *sides = builder.shape(source)
    matrices = [_weights(node, sides, axis) for axis in range(len(sides))]
    x = torch.rand(1, 1, *sides, dtype=torch.float64, generator=torch.Generator().manual_seed(1))
    expected, rows = _called(node, x)[0, 0], torch.from_numpy(matrices[0])
    computed = rows @ x[0, 0] @ torch.from_numpy(matrices[1]).T if len(sides) == 2 else rows @ x[0, 0]
    if not torch.allclose(computed, expected, rtol=0, atol=1e-9):
        raise builder.refused("weights that are not a product of those of rows and columns")
    lines = builder.reshaped(source, (channels, *sides) if len(sides) == 2 else (channels, 1, *sides), ".lines")
    last = builder.add(Constant, part=".columns", numbers=_held(matrices[-1].T))
    found = builder.add(Product, lines, last, part=".along")
    if len(sides) == 2:
        first = builder.add(Constant, part=".rows", numbers=_held(matrices[0]))
        found = builder.add(Product, first, found)
    return builder.reshaped(found, builder.given(), ".shape")


def _weights(node: fx.Node, sides: list[int], axis: int) -> NDArray[np.float64]:
    """Return the weights of a call along one of its axes, (places after, places before): its answers to unit vectors."""
    found = []
    for place in range(sides[axis]):
        unit = torch.zeros(sides[axis], dtype=torch.float64)
        unit[place] = 1
        line = unit.reshape(-1, *(1,) * (len(sides) - 1 - axis)).expand(sides)
        found.append(_line(_called(node, line[None, None])[0, 0], axis))
    return torch.stack(found, 1).numpy()


def _line(found: Tensor, axis: int) -> Tensor:
    """Return the numbers along an axis; those along others are the same."""
    return found.movedim(axis, 0).reshape(found.shape[axis], -1)[:, 0]


def _held(matrix: NDArray[np.float64]) -> NDArray[np.float32]:
    return np.ascontiguousarray(matrix, np.float32)[None]


RESAMPLING: dict[Any, Rule] = {
    aten.upsample_nearest2d: upsample("nearest"), aten.upsample_bilinear2d: upsample("bilinear"),
    aten.upsample_nearest1d: picked, aten._upsample_nearest_exact1d: picked, aten._upsample_nearest_exact2d: picked,
    aten.upsample_linear1d: weighted, aten.upsample_bicubic2d: weighted, aten._upsample_bilinear2d_aa: weighted,
    aten._upsample_bicubic2d_aa: weighted,
}  # fmt: skip
