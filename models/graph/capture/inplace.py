"""Removal of in-place changes from an exported graph, so that a transform may remove or share operations."""

from __future__ import annotations

import contextlib
from typing import Any

import torch
from torch import fx
from torch._subclasses import FakeTensor

from models.graph.calls import changes, packet, schema, source

aten = torch.ops.aten

LIKE = {aten.zero.default: aten.zeros_like.default, aten.fill.Scalar: aten.full_like.default}
"""The usual names of operations that read only the shape of what they change."""


def functional(graph: fx.Graph) -> None:
    """Turn `x += y` and `x[:] = y` into a new value, unless another value in the memory of `x` is read later.

    Those of a part whose whole is read later (`x[:, 0] = 0`) are left to parts.py.
    """
    order, memory = {node: place for place, node in enumerate(graph.nodes)}, roots(graph)
    for node in list(graph.nodes):
        if not can_be_new(node):
            continue
        changed, here = source(node), order[node]
        others = [v for v, first in memory.items() if first is memory[changed] and v is not changed and order[v] < here]
        if any(order.get(user, here) > here for value in others for user in value.users):
            continue
        new = as_new(graph, node)
        order[new] = here
        memory[new] = memory[changed]
        changed.replace_all_uses_with(new, delete_user_cb=lambda user, here=here: order.get(user, here) > here)
        node.replace_all_uses_with(new)
        graph.erase_node(node)
        del order[node], memory[node]


def can_be_new(node: fx.Node) -> bool:
    """Return whether `as_new` knows what a call writes."""
    return (target := _without_change(node)) is not None and (target is not aten.copy.default or _keeps_type(node))


def as_new(graph: fx.Graph, node: fx.Node) -> fx.Node:
    """Write the calls that give what a call writes into its first argument, before that call; return the last one."""
    target, changed, rest = _without_change(node), source(node), node.args[1:]
    with graph.inserting_before(node):
        if target is aten.copy.default:  # it has no derivative
            return call(graph, node, aten.clone.default, call(graph, node, aten.expand_as.default, *rest, changed))
        if target is aten.fill.Tensor:
            return call(graph, node, aten.add.Tensor, call(graph, node, aten.zeros_like.default, changed), *rest)
        return call(graph, node, LIKE.get(target, target), *node.args, **node.kwargs)


def call(graph: fx.Graph, node: fx.Node, target: Any, *args: Any, **kwargs: Any) -> fx.Node:
    """Write a call with the place in the code of another node, and the sizes of its value."""
    made = graph.call_function(target, args, kwargs)
    given, named = fx.node.map_arg((args, kwargs), lambda each: each.meta["val"])
    known = [each.meta["val"] for each in made.all_input_nodes]
    shapes = next((value.fake_mode.shape_env for value in known if isinstance(value, FakeTensor)), None)
    with shapes.suppress_guards() if shapes else contextlib.nullcontext():  # the export has checked them
        made.meta = {**node.meta, "val": target(*given, **named)}
    return made


def written(graph: fx.Graph) -> set[fx.Node]:
    """Return the nodes whose memory the graph writes into."""
    memory = roots(graph)
    return {memory[source(node)] for node in graph.nodes if changes(node)}


def roots(graph: fx.Graph) -> dict[fx.Node, fx.Node]:
    """Return for each value the first value in the same memory."""
    found: dict[fx.Node, fx.Node] = {}
    for node in graph.nodes:
        shared = _shares_with(node)
        found[node] = node if shared is None else found[shared]
    return found


def _shares_with(node: fx.Node) -> fx.Node | None:
    """Return the argument whose memory a call's result may share: for a view, a change, or an entry of a list."""
    if node.op == "call_function" and getattr(node.target, "__name__", "") == "getitem":
        return source(node)
    said = schema(node)
    if said and any(value.alias_info for value in said.returns):
        for argument, value in zip(said.arguments, node.args, strict=False):
            if argument.alias_info and isinstance(value, fx.Node):
                return value
    return None


def _keeps_type(node: fx.Node) -> bool:
    """Return whether a copy reads numbers of the type that it writes."""
    to, given = (source.meta["val"] for source in node.args[:2])  # type: ignore[union-attr]
    return to.dtype == given.dtype


def _without_change(node: fx.Node) -> Any:
    """Return the operation that computes the same without writing, such as aten.add for aten.add_, None without one."""
    if not changes(node):
        return None
    same = packet(node)
    other = getattr(torch.ops.aten, same.__name__.removesuffix("_"), None)
    return None if other is None or other is same else getattr(other, getattr(node.target, "_overloadname", ""), None)
