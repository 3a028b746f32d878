"""Removal of in-place changes from an exported graph, so that a transform may remove or share operations."""

from __future__ import annotations

from typing import Any

import torch
from torch import fx

from models.graph.calls import changes, packet, schema, source

aten = torch.ops.aten


def functional(graph: fx.Graph) -> None:
    """Turn `x += y` and `x[:] = y` into a new value, unless another value in the memory of `x` is read later.

    A change of a part whose whole is read later (`x[:, 0] = 0`) stays in place.
    """
    order, memory = {node: place for place, node in enumerate(graph.nodes)}, roots(graph)
    for node in list(graph.nodes):
        target = _without_change(node)
        if target is None or (target is aten.copy.default and not _keeps_type(node)):
            continue
        changed, here = source(node), order[node]
        others = [v for v, first in memory.items() if first is memory[changed] and v is not changed and order[v] < here]
        if any(order[user] > here for value in others for user in value.users):
            continue
        changed.replace_all_uses_with(node, delete_user_cb=lambda user, here=here: order[user] > here)
        node.target = target
        if target is aten.copy.default:
            order[_as_clone(graph, node, changed)] = here


def _as_clone(graph: fx.Graph, node: fx.Node, changed: fx.Node) -> fx.Node:
    """Make a clone of a copy: aten.copy has no derivative. Return the node that gives what is copied the right sizes."""
    with graph.inserting_before(node):
        expanded = graph.call_function(aten.expand_as.default, (node.args[1], changed))
    expanded.meta = dict(node.meta)
    node.target, node.args, node.kwargs = aten.clone.default, (expanded,), {}
    return expanded


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
