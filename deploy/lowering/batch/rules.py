"""RULES: how each call is written for values whose pictures are not in the first axis."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch import fx

from deploy.lowering.batch.writer import Writer, shape_of
from models.graph.calls import packet, source, takes_all, values

aten = torch.ops.aten

Rule = Callable[[Writer, fx.Node], None]

LAST = "it reads the last axes, and the pictures are in one of them"


def reshape(to: Writer, node: fx.Node) -> None:
    before = to.axes[source(node)]
    axis = before.reshaped(shape_of(node))
    if before.is_first and axis.is_first:
        to.copy(node, axis)
    else:
        to.write(node, axis, aten.reshape.default, source(node), [-1, *axis.apart])


def permute(to: Writer, node: fx.Node) -> None:
    told, before = values(node), to.axes[source(node)]
    axes = told.get("dims")
    if axes is None:  # two axes change places
        axes = list(range(before.rank))
        one, other = (int(n) % before.rank for name, n in told.items() if name != "self")
        axes[one], axes[other] = other, one
    axis, order = before.permuted(axes)
    if before.is_first and axis.is_first:
        to.copy(node, axis)
    else:
        to.write(node, axis, aten.permute.default, source(node), order)


def along(removes: bool) -> Rule:
    """Return the rule for a call that takes parts of another axis.

    Args:
        removes: whether the parts lack that axis.
    """

    def rule(to: Writer, node: fx.Node) -> None:
        told = values(node)
        before = to.axis_of(told["self"])
        dim = told["dim"] % before.rank
        if dim == before.place and takes_all(told):
            to.record(node, to.new[told["self"]], before)
            return
        there = before.axis(dim)
        axis = before.without(dim) if removes else before
        if node.meta.get("shape") is not None:  # else it gives a list, and each getitem has the sizes of its part
            axis = axis.resized(shape_of(node))
        to.write(node, axis, node.target, told.pop("self"), **{**told, "dim": there})

    return rule


def reduce(to: Writer, node: fx.Node) -> None:
    """Write a sum, mean, norm or softmax along other axes."""
    told = values(node)
    axis = before = to.axes[told["self"]]
    if "dim" not in told:
        raise ValueError("it works across pictures")
    dims = [told["dim"]] if isinstance(told["dim"], int) else list(told["dim"] or range(before.rank))
    there = [before.axis(dim) for dim in dims]
    if len(shape_of(node)) < before.rank:
        for dim in sorted((dim % before.rank for dim in dims), reverse=True):
            axis = axis.without(dim)
    told["dim"] = there[0] if isinstance(told["dim"], int) else there
    to.write(node, axis.resized(shape_of(node)), node.target, told.pop("self"), **told)


def along_each(to: Writer, node: fx.Node) -> None:
    """Write a call that moves numbers along some other axes."""
    told = values(node)
    axis, dims = to.axis_of(source(node)), told["dims"]
    told["dims"] = [axis.axis(dim) for dim in ([dims] if isinstance(dims, int) else dims)]
    to.write(node, axis, node.target, told.pop("self"), **told)


def index(to: Writer, node: fx.Node) -> None:
    """Write the choice of numbers along one other axis by a line of places."""
    axis, given = to.axis_of(source(node)), values(node)["indices"]
    named = [dim for dim, each in enumerate(given) if each is not None]
    if len(named) != 1 or len(shape_of(node)) != axis.rank:
        raise ValueError("several indices, or one of several axes, of a value whose pictures are not in its first axis")
    places = [*[None] * axis.axis(named[0]), given[named[0]]]
    to.write(node, axis.resized(shape_of(node)), aten.index.Tensor, source(node), places)


def concatenate(to: Writer, node: fx.Node) -> None:
    told = values(node)
    axis = to.beside(told["tensors"])
    to.write(node, axis.resized(shape_of(node)), node.target, told["tensors"], axis.axis(told["dim"]))


def stack(to: Writer, node: fx.Node) -> None:
    told = values(node)
    axis = to.beside(told["tensors"])
    place = told["dim"] % (axis.rank + 1)
    found = axis.resized(shape_of(node), axis.place + (place <= axis.place))
    to.write(node, found, node.target, told["tensors"], found.axis(place))


def product(to: Writer, node: fx.Node) -> None:
    """Write a product of matrices, which are the last two axes of two values, or of rows and a matrix of the network."""
    axis, other = to.beside(node.all_input_nodes).resized(shape_of(node)), node.args[1]
    attends = packet(node) is aten.scaled_dot_product_attention
    of_rows = not attends and other not in to.axes and len(to.held_sizes(other)) <= 2  # type: ignore[arg-type]
    if any(len(to.axes[each].after) < (1 if of_rows else 2) for each in node.all_input_nodes if each in to.axes):
        raise ValueError(LAST)
    instead = {} if of_rows else to.aligned(node.all_input_nodes, axis)
    if attends:
        to.copy(node, axis, instead)
    else:
        to.write(node, axis, aten.matmul.default, *node.args[:2], instead=instead)


def expand(to: Writer, node: fx.Node) -> None:
    axis = to.beside(node.all_input_nodes).resized(shape_of(node))
    if axis.rank != len(shape_of(node)):
        raise ValueError("it adds axes in front")
    held = source(node) not in to.axes
    instead = to.aligned([source(node)], axis) if held else {}
    to.write(node, axis, aten.expand.default, source(node), [1 if held else -1, *axis.apart], instead=instead)


def linear(to: Writer, node: fx.Node) -> None:
    if not to.axes[source(node)].after:
        raise ValueError(LAST)
    to.copy(node, to.beside(node.all_input_nodes).resized(shape_of(node)))


def layer_norm(to: Writer, node: fx.Node) -> None:
    axis = to.axes[source(node)]
    if len(values(node)["normalized_shape"]) > len(axis.after):
        raise ValueError(LAST)
    to.copy(node, axis)


def pad(to: Writer, node: fx.Node) -> None:
    axis, told = to.axes[source(node)], values(node)
    if len(told["pad"]) > 2 * len(axis.after):
        raise ValueError("it pads the axis of the pictures, or one in front of it")
    if told.get("mode", "constant") != "constant":
        raise ValueError("it repeats numbers at the sides of a value whose pictures are not in its first axis")
    to.copy(node, axis.resized(shape_of(node)))


RESHAPES = (
    aten.reshape, aten.view, aten._unsafe_view, aten.reshape_as, aten.view_as, aten.flatten, aten.unflatten, aten.squeeze,
    aten.unsqueeze,
)  # fmt: skip
PERMUTES = (aten.permute, aten.transpose)

RULES: dict[Any, Rule] = {
    **dict.fromkeys(RESHAPES, reshape),
    **dict.fromkeys(PERMUTES, permute),
    **dict.fromkeys((aten.select, aten.unbind), along(removes=True)),
    **dict.fromkeys((aten.slice, aten.split, aten.unsafe_split, aten.split_with_sizes), along(removes=False)),
    **dict.fromkeys((aten.mean, aten.sum, aten.amax, aten.amin, aten.linalg_vector_norm), reduce),
    **dict.fromkeys((aten.var, aten.std, aten.logsumexp, aten.cumsum), reduce),
    **dict.fromkeys((aten.flip, aten.roll), along_each),
    aten.index: index, aten.index_select: along(removes=False),
    **dict.fromkeys((aten.softmax, aten._softmax, aten.log_softmax, aten._log_softmax), reduce),
    **dict.fromkeys((aten.matmul, aten.bmm, aten.scaled_dot_product_attention), product),
    **dict.fromkeys((aten.expand, aten.expand_as), expand),
    aten.cat: concatenate, aten.stack: stack, aten.linear: linear, aten.layer_norm: layer_norm, aten.rms_norm: layer_norm,
    **dict.fromkeys((aten.pad, aten.constant_pad_nd), pad),
}  # fmt: skip
"""The rule of each call; elementwise functions need none."""

MOVING = frozenset({*RESHAPES, *PERMUTES, aten.stack})
"""The calls that can move the pictures from the first axis."""
