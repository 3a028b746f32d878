"""Rules for calls that move, cut or join numbers."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch import fx

from deploy.lowering.builder import Builder, Rule
from deploy.operations.places import Concatenate, Permute, Slice
from models.graph.calls import takes_all, values

aten = torch.ops.aten


def same(builder: Builder, node: fx.Node) -> int:
    return builder.source()


def reshape(builder: Builder, node: fx.Node) -> int:
    """Add any call that keeps the order of numbers; the graph gives the result's shape."""
    return builder.reshaped(builder.source(), builder.given())


def permute(builder: Builder, node: fx.Node) -> int:
    dims = values(node)["dims"]
    axes = [dim % len(dims) for dim in dims]
    return _with_axes(builder, axes)


def transpose(builder: Builder, node: fx.Node) -> int:
    told = values(node)
    names = ("dim0", "dim1") if "dim0" in told else ("axis0", "axis1")
    rank = len(builder.shape(builder.source())) + 1
    axes = list(range(rank))
    one, other = (told[name] % rank for name in names)
    axes[one], axes[other] = axes[other], axes[one]
    return _with_axes(builder, axes)


def _with_axes(builder: Builder, axes: list[int]) -> int:
    if axes[0] != 0:
        raise builder.refused("it works across pictures")
    return permuted(builder, builder.source(), [axis - 1 for axis in axes[1:]])


def permuted(builder: Builder, source: int, axes: Sequence[int], part: str = "") -> int:
    """Add a value with its axes in another order; the value itself if they are in order.

    Args:
        part: as in Builder.add.
    """
    return source if [*axes] == sorted(axes) else builder.add(Permute, source, part=part, axes=tuple(axes))


def concatenate(builder: Builder, node: fx.Node) -> int:
    told = values(node)
    sources = [builder.source(part) for part in told["tensors"]]
    return builder.add(Concatenate, *sources, axis=builder.axis(told["dim"], len(builder.given()) + 1))


def sliced(builder: Builder, sizes: list[int], axis: int, source: int | None = None, part: str = "") -> list[int]:
    """Add the parts of a value along an axis, of these sizes one after the other.

    Args:
        source: the value's number; None: that of the first argument.
        part: as in Builder.add.
    """
    found, at = [], 0
    source = builder.source() if source is None else source
    for number, size in enumerate(sizes):
        found.append(
            builder.add(Slice, source, part=f"{part}.{number}", axis=axis, start=at, stop=at + size) if size else 0
        )
        at += size
    return found


def split(builder: Builder, node: fx.Node) -> list[int]:
    told = values(node)
    axis = builder.axis(told["dim"])
    sizes: Any = told.get("split_sizes", told.get("split_size"))
    return sliced(builder, list(sizes), axis) if isinstance(sizes, (list, tuple)) else _split(builder, axis, sizes)


def _split(builder: Builder, axis: int, size: int) -> list[int]:
    whole = builder.shape(builder.source())[axis]
    return sliced(builder, [min(size, whole - at) for at in range(0, whole, size)], axis)


def unbind(builder: Builder, node: fx.Node) -> list[int]:
    axis = builder.axis(values(node)["dim"])
    shape = builder.shape(builder.source())
    short = shape[:axis] + shape[axis + 1 :]
    each = _split(builder, axis, 1)
    return [builder.reshaped(part, short, f".{number}.shape") for number, part in enumerate(each)]


def item(builder: Builder, node: fx.Node) -> int:
    """Return one of the values that a call gave."""
    parts, which = node.args
    found = builder.at.get(parts)  # type: ignore[arg-type]
    if not isinstance(found, list) or not isinstance(which, int) or which >= len(found):
        raise builder.refused(f"it reads value {which} of {parts}, which a program does not have")
    return found[which]


def cut(builder: Builder, node: fx.Node) -> int:
    told = values(node)
    dim = told["dim"]
    size = None if dim == 0 else builder.shape(builder.source())[builder.axis(dim)]
    start, stop = told["start"] or 0, told["end"]
    if size is None:
        if not takes_all(told):
            raise builder.refused("it works across pictures")
        return builder.source()
    if not all(end is None or isinstance(end, int) for end in (start, stop)):
        raise builder.refused("bounds that are computed")
    places = range(size)[slice(start, stop, told["step"])]
    if len(places) == size:
        return builder.source()
    return builder.add(
        Slice, builder.source(), axis=builder.axis(dim), start=places.start, stop=places.stop, step=places.step
    )


def select(builder: Builder, node: fx.Node) -> int:
    told = values(node)
    axis = builder.axis(told["dim"])
    if not isinstance(told["index"], int):
        raise builder.refused("an index that is computed")
    at = told["index"] % builder.shape(builder.source())[axis]
    found = builder.add(Slice, builder.source(), axis=axis, start=at, stop=at + 1)
    return builder.reshaped(found, builder.given(), ".shape")


def pixel_shuffle(builder: Builder, node: fx.Node) -> int:
    """Move channels to rows and columns: (C r r, H, W) -> (C, H r, W r)."""
    factor = values(node)["upscale_factor"]
    channels, rows, columns = builder.shape(builder.source())
    apart = builder.reshaped(builder.source(), (channels // factor**2, factor, factor, rows, columns), ".apart")
    moved = builder.add(Permute, apart, part=".move", axes=(0, 3, 1, 4, 2))
    return builder.reshaped(moved, builder.given())


def channel_shuffle(builder: Builder, node: fx.Node) -> int:
    groups = values(node)["groups"]
    channels, rows, columns = builder.shape(builder.source())
    apart = builder.reshaped(builder.source(), (groups, channels // groups, rows, columns), ".apart")
    moved = builder.add(Permute, apart, part=".move", axes=(1, 0, 2, 3))
    return builder.reshaped(moved, builder.given())


def stack(builder: Builder, node: fx.Node) -> int:
    """Join values along a new axis."""
    told = values(node)
    rank = len(builder.given()) + 1
    axis = builder.axis(told["dim"], rank)
    parts = []
    for number, part in enumerate(told["tensors"]):
        shape = builder.shape(builder.source(part))
        parts.append(builder.reshaped(builder.source(part), (*shape[:axis], 1, *shape[axis:]), f".{number}"))
    return builder.add(Concatenate, *parts, axis=axis)


MOVES: dict[Any, Rule] = {
    **dict.fromkeys((aten.contiguous, aten.clone, aten.detach, aten.alias, aten.dropout, aten.feature_dropout), same),
    **dict.fromkeys(
        (aten.flatten, aten.reshape, aten._unsafe_view, aten.reshape_as, aten.view_as, aten.unflatten, aten.squeeze, aten.unsqueeze), reshape
    ),
    aten.permute: permute, aten.transpose: transpose, aten.cat: concatenate,
    aten.split: split, aten.unsafe_split: split, aten.split_with_sizes: split, aten.unbind: unbind,
    aten.slice: cut, aten.select: select, aten.pixel_shuffle: pixel_shuffle,
    aten.channel_shuffle: channel_shuffle, aten.stack: stack,
}  # fmt: skip
