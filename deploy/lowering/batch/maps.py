"""Calls on maps of pictures that are laid beside groups or windows, (B * groups, C, H, W), as in EMA attention and window attention.

Their batch-first form is (B, groups, C, H, W), or has two axes for groups on both sides of B.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

import torch
from torch import fx, nn

from deploy.lowering.batch.axis import BatchAxis
from deploy.lowering.batch.writer import Writer, shape_of
from models.graph.calls import BATCH, packet, source, values
from models.graph.flow import module, readers

aten = torch.ops.aten

POOLS = (nn.MaxPool2d, nn.AvgPool2d, nn.AdaptiveAvgPool2d)
POOLING = frozenset({aten.max_pool2d, aten.upsample_nearest2d, aten.upsample_bilinear2d})
"""Calls that work on each channel alone."""
MOST = 64
"""The most groups that a layer runs on one after the other."""


def on_maps(to: Writer, node: fx.Node) -> bool:
    """Write a call on maps; return False if no rule for maps knows it.

    Raises:
        ValueError: for maps that are not behind the axis of the pictures, and for more groups than MOST.
    """
    rule = _rule(to, node)
    if rule is None:
        return False
    axis = to.axes.get(source(node))
    if axis is None or axis.before or len(axis.after) < 2:
        raise ValueError("it reads maps that are not behind the axis of the pictures")
    rule(to, node, axis)
    return True


def _rule(to: Writer, node: fx.Node) -> Callable[[Writer, fx.Node, BatchAxis], None] | None:
    found = module(to.form, node)
    if isinstance(found, POOLS) or packet(node) in POOLING:
        return _pool
    if isinstance(found, nn.BatchNorm2d):
        return _norm
    if packet(node) is aten.group_norm:
        return _group_norm
    is_layer = isinstance(found, (nn.Conv2d, nn.ConvTranspose2d)) or packet(node) is aten.conv2d
    return _layer if is_layer else None


def _joined(to: Writer, node: fx.Node, axis: BatchAxis) -> fx.Node:
    """Write the maps with the channels of all groups side by side, (B, groups * C, H, W)."""
    channels, *sides = axis.after
    sizes = [_groups(axis) * channels, *sides]
    return to.step(node, sizes, aten.reshape.default, to.new[source(node)], [-1, *sizes])


def _groups(axis: BatchAxis) -> int:
    return axis.outer * axis.inner


def _called(to: Writer, node: fx.Node, given: fx.Node, sizes: Sequence[int]) -> fx.Node:
    """Write a node's call on another value; `sizes` are those of its result, without the pictures."""
    made = to.graph.node_copy(node, lambda each: given if each is source(node) else to.new[each])
    made.meta = {**node.meta, "shape": (None, *sizes), "sizes": (BATCH, *sizes)}
    return made


def _apart(to: Writer, node: fx.Node, made: fx.Node) -> None:
    """Record a result with the channels of all groups side by side in a node's place."""
    axis = to.axes[source(node)].resized(shape_of(node))
    to.record(node, to.step(node, axis.apart, aten.reshape.default, made, [-1, *axis.apart]), axis)


def _pool(to: Writer, node: fx.Node, axis: BatchAxis) -> None:
    after = axis.resized(shape_of(node)).after
    sizes = [_groups(axis) * after[0], *after[1:]]
    _apart(to, node, _called(to, node, _joined(to, node, axis), sizes))


def _layer(to: Writer, node: fx.Node, axis: BatchAxis) -> None:
    """Write a layer once for each group; a packed file stores its weights once."""
    many, channels = _groups(axis), axis.after[0]
    if many > MOST:
        raise ValueError(f"it runs on {many} groups or windows of each picture, more than {MOST}")
    if any(isinstance(module(to.form, reader), nn.MaxPool2d) for reader in readers(node)):
        raise ValueError("it runs on groups of each picture, in front of a max-pool")  # see layers._flip
    joined, after = _joined(to, node, axis), axis.resized(shape_of(node)).after
    parts = []
    for start in range(0, many * channels, channels):
        part = to.step(node, axis.after, aten.slice.Tensor, joined, 1, start, start + channels)
        parts.append(_called(to, node, part, after))
    _apart(to, node, to.step(node, [many * after[0], *after[1:]], aten.cat.default, parts, 1))


def _norm(to: Writer, node: fx.Node, axis: BatchAxis) -> None:
    """Write a batch norm with the maps of a channel one below the other, (B, C, groups * H, W)."""
    many, (channels, rows, columns) = _groups(axis), axis.after
    apart = to.step(
        node, (many, *axis.after), aten.reshape.default, to.new[source(node)], [-1, many, channels, rows, columns]
    )
    turned = to.step(node, (channels, many, rows, columns), aten.permute.default, apart, [0, 2, 1, 3, 4])
    sizes = (channels, many * rows, columns)
    below = to.step(node, sizes, aten.reshape.default, turned, [-1, *sizes])
    normed = _called(to, node, below, sizes)
    back = to.step(
        node, (channels, many, rows, columns), aten.reshape.default, normed, [-1, channels, many, rows, columns]
    )
    again = to.step(node, (many, *axis.after), aten.permute.default, back, [0, 2, 1, 3, 4])
    to.record(node, to.step(node, axis.apart, aten.reshape.default, again, [-1, *axis.apart]), axis)


def _group_norm(to: Writer, node: fx.Node, axis: BatchAxis) -> None:
    """Write a group norm with as many times the groups, and its weight and bias behind it."""
    told, many = values(node), _groups(axis)
    joined = _joined(to, node, axis)
    sizes = joined.meta["shape"][1:]
    found = to.step(node, sizes, aten.group_norm.default, joined, many * told["num_groups"], None, None, told["eps"])
    found = to.step(node, axis.apart, aten.reshape.default, found, [-1, *axis.apart])
    for name, call in (("weight", aten.mul.Tensor), ("bias", aten.add.Tensor)):
        if told[name] is not None:
            held = to.graph.call_function(
                aten.reshape.default, (to.new[told[name]], [-1, *[1] * (len(axis.after) - 1)])
            )
            held.meta = {"owner": node.meta.get("owner"), "held": True}
            found = to.step(node, axis.apart, call, found, held)
    to.record(node, found, axis)
