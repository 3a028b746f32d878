"""Rules for calls that take numbers of an axis by their places: indexing with tensors, flip, roll, Tensor.unfold."""

from __future__ import annotations

from math import prod
from typing import Any

import numpy as np
import torch
from numpy.typing import ArrayLike
from torch import Tensor, fx

from deploy.lowering.builder import Builder, Rule
from deploy.lowering.moves import permuted
from deploy.operations.places import Take
from models.graph.calls import values

aten = torch.ops.aten


def taken(builder: Builder, source: int, axis: int, places: ArrayLike, part: str = "") -> int:
    """Add the numbers at some places of an axis; the value itself if these are all places in order.

    Args:
        part: as in Builder.add.
    """
    found = np.asarray(places, np.int32).reshape(-1)
    if np.array_equal(found, np.arange(builder.shape(source)[axis])):
        return source
    return builder.add(Take, source, part=part, axis=axis, places=found)


def indexed(builder: Builder, node: fx.Node) -> int:
    """Take the numbers that a tensor of the network names, or several tensors for axes side by side, as `x[:, rows, columns]`."""
    told = values(node)
    given = {axis: each for axis, each in enumerate(told["indices"]) if each is not None}
    axes = sorted(given)
    if 0 in given or axes != list(range(axes[0], axes[-1] + 1)):
        raise builder.refused("an index beside the pictures, or of axes that are not side by side")
    shape = builder.shape(builder.source())
    first, sizes = axes[0] - 1, shape[axes[0] - 1 : axes[-1]]
    places = torch.broadcast_tensors(*(_places(builder, given[axis], shape[axis - 1]) for axis in axes))
    flat = np.ravel_multi_index([each.numpy() for each in places], sizes)
    source = builder.reshaped(builder.source(), (*shape[:first], prod(sizes), *shape[first + len(axes) :]), ".axes")
    return builder.reshaped(taken(builder, source, first, flat), builder.given(), ".shape")


def _places(builder: Builder, index: fx.Node, size: int) -> Tensor:
    """Return the places that an index names along an axis of this size, all from 0 on."""
    found = builder.held.get(index)
    if not isinstance(found, Tensor) or found.is_floating_point() or found.dtype is torch.bool:
        raise builder.refused("an index that is a mask or depends on the picture")
    return torch.where(found < 0, found + size, found).cpu()


def index_select(builder: Builder, node: fx.Node) -> int:
    told = values(node)
    axis = builder.axis(told["dim"])
    places = _places(builder, told["index"], builder.shape(builder.source())[axis])
    return taken(builder, builder.source(), axis, places)


def flip(builder: Builder, node: fx.Node) -> int:
    found = builder.source()
    for number, dim in enumerate(values(node)["dims"]):
        axis = builder.axis(dim)
        found = taken(builder, found, axis, np.arange(builder.shape(found)[axis])[::-1], f".{number}")
    return found


def roll(builder: Builder, node: fx.Node) -> int:
    told = values(node)
    shifts, dims = (
        list(each) if isinstance(each, (list, tuple)) else [each] for each in (told["shifts"], told["dims"])
    )
    if not dims or not all(isinstance(shift, int) for shift in shifts):
        raise builder.refused("it works across pictures, or by numbers that are computed")
    found = builder.source()
    for number, (shift, dim) in enumerate(zip(shifts, dims, strict=True)):
        axis = builder.axis(dim)
        found = taken(builder, found, axis, np.roll(np.arange(builder.shape(found)[axis]), shift), f".{number}")
    return found


def unfold(builder: Builder, node: fx.Node) -> int:
    """Add Tensor.unfold: the windows of one axis, whose numbers become a new last axis."""
    told = values(node)
    axis, size, step = builder.axis(told["dimension"]), told["size"], told["step"]
    shape = builder.shape(builder.source())
    starts = np.arange(0, shape[axis] - size + 1, step)
    found = taken(builder, builder.source(), axis, starts[:, None] + np.arange(size), ".windows")
    found = builder.reshaped(found, (*shape[:axis], len(starts), size, *shape[axis + 1 :]), ".apart")
    rank = len(shape) + 1
    order = [*(place for place in range(rank) if place != axis + 1), axis + 1]
    return permuted(builder, found, order)


PICKING: dict[Any, Rule] = {
    aten.index: indexed, aten.index_select: index_select, aten.flip: flip, aten.roll: roll,
    aten.unfold: unfold,
}  # fmt: skip
