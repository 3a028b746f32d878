"""Removal of in-place changes from an exported graph, so that a transform may remove or share operations."""

from __future__ import annotations

from typing import Any

import torch
from torch import fx

from models.graph.aliases import roots
from models.graph.calls import changes, packet, schema, shape, source, values
from models.graph.capture.fakes import unguarded

aten = torch.ops.aten

LIKE = {aten.zero.default: aten.zeros_like.default, aten.fill.Scalar: aten.full_like.default}
"""The usual names of operations that read only the shape of what they change."""


def functional(graph: fx.Graph) -> None:
    """Turn `x += y` and `x[:] = y` into a new value, unless another value in the memory of `x` is read later.

    Those of a part whose whole is read later (`x[:, 0] = 0`) are left to parts.py.
    """
    order, memory = {node: place for place, node in enumerate(graph.nodes)}, roots(graph)
    for node in list(graph.nodes):
        if not changes(node):
            continue
        changed, here = source(node), order[node]
        others = [v for v, first in memory.items() if first is memory[changed] and v is not changed and order[v] < here]
        if any(order.get(user, here) > here for value in others for user in value.users):
            continue
        if (new := as_new(graph, node)) is None:
            continue
        order[new] = here
        memory[new] = memory[changed]
        changed.replace_all_uses_with(new, delete_user_cb=lambda user, here=here: order.get(user, here) > here)
        node.replace_all_uses_with(new)
        graph.erase_node(node)
        del order[node], memory[node]


def as_new(graph: fx.Graph, node: fx.Node) -> fx.Node | None:
    """Write the calls that give what a call writes into its first argument, before that call; return the last one.

    Returns:
        None, with nothing written, if no such call is known, or it gives numbers of another type.
    """
    target, changed = _without_change(node), source(node)
    if target is None or (target is aten.copy.default and not _keeps_type(*node.args[:2])):
        return None
    with graph.inserting_before(node):
        if target is aten.index_put.default and (mask := _mask(node)) is not None:
            for _ in range(changed.meta["val"].ndim - mask.meta["val"].ndim):
                mask = inserted(graph, node, aten.unsqueeze.default, mask, -1)
            return inserted(graph, node, aten.where.self, mask, node.args[2], changed)
        if target is aten.copy.default:  # it has no derivative
            given: Any = node.args[1]
            if shape(given) != shape(changed):
                given = inserted(graph, node, aten.expand_as.default, given, changed)
            return inserted(graph, node, aten.clone.default, given)
        made = []
        if target is aten.fill.Tensor:
            made.append(inserted(graph, node, aten.zeros_like.default, changed))
            made.append(inserted(graph, node, aten.add.Tensor, made[0], *node.args[1:]))
        else:
            made.append(inserted(graph, node, LIKE.get(target, target), *node.args, **node.kwargs))
    if made[-1].meta["val"].dtype == changed.meta["val"].dtype:
        return made[-1]
    for each in reversed(made):
        graph.erase_node(each)
    return None


def _mask(node: fx.Node) -> fx.Node | None:
    """Return the truths of a call that writes one number where they hold, as `x[x < 0] = 0`; None for other indices."""
    told = values(node)
    index, given = told["indices"], told["values"]
    if len(index) != 1 or told["accumulate"] or shape(given) or not _keeps_type(source(node), given):
        return None
    return index[0] if index[0].meta["val"].dtype == torch.bool else None


def inserted(graph: fx.Graph, node: fx.Node, target: Any, *args: Any, **kwargs: Any) -> fx.Node:
    """Insert a call with the place in the code of another node, and the sizes of its value."""
    made = graph.call_function(target, args, kwargs)
    given, named = fx.node.map_arg((args, kwargs), lambda each: each.meta["val"])
    with unguarded([each.meta["val"] for each in made.all_input_nodes]):
        made.meta = {**node.meta, "val": target(*given, **named)}
    return made


def _keeps_type(to: Any, given: Any) -> bool:
    """Return whether a value is written into one of its own type."""
    return to.meta["val"].dtype == given.meta["val"].dtype


def _without_change(node: fx.Node) -> Any:
    """Return the operation that computes the same without writing, such as aten.add for aten.add_; None without one."""
    if not changes(node):
        return None
    same = packet(node)
    other = getattr(torch.ops.aten, same.__name__.removesuffix("_"), None)
    found = None if other is None or other is same else getattr(other, getattr(node.target, "_overloadname", ""), None)
    return found if found is not None and _is_like(schema(node), found._schema) else None


def _is_like(one: Any, other: Any) -> bool:
    """Return whether two operations take the same types, and the other gives a value of its own: `unsqueeze` gives a view."""
    own = not any(value.alias_info for value in other.returns)
    return own and [str(each.type) for each in one.arguments] == [str(each.type) for each in other.arguments]
