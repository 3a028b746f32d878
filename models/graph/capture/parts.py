"""Changes of a part of a value, as `x[:, :k] = y`, whose whole is read later: they become a new whole.

It is joined from the new part and the rest of the old whole, so that every rule knows its operations.
"""

from __future__ import annotations

from typing import NamedTuple, cast

import torch
from torch import fx

from models.graph.aliases import roots
from models.graph.calls import changes, packet, source, takes_all, values
from models.graph.capture.inplace import as_new, inserted

aten = torch.ops.aten

VIEWS = frozenset({
    aten.slice, aten.select, aten.view, aten.permute, aten.transpose, aten.t, aten.unsqueeze, aten.squeeze, aten.alias,
    aten.detach, aten.split, aten.split_with_sizes, aten.unbind,
})  # fmt: skip
"""Operations whose value always lies in the memory of what they read."""


class Span(NamedTuple):
    """Places of an axis.

    Args:
        size: of the whole axis.
        is_one: whether the part lacks the axis, as `x[:, 3]`.
    """

    axis: int
    places: range
    size: int
    is_one: bool


WHOLE = Span(0, range(0), 0, is_one=False)
"""A slice of a whole axis, of any size."""
MOST_APART = 256
"""Places that a change of some places apart, as `x[:, 1:5:2] = y`, may have: the new whole is joined from pieces of one place."""


def join_parts(graph: fx.Graph) -> None:
    """Replace changes of parts by new wholes, where the parts are slices and whoever reads the memory is known."""
    for node in [*graph.nodes]:
        if changes(node):
            _replace(graph, node)


def _replace(graph: fx.Graph, node: fx.Node) -> None:
    order, memory = {each: place for place, each in enumerate(graph.nodes)}, roots(graph)
    here, root = order[node], memory[source(node)]
    changed = {memory[source(each)] for each in graph.nodes if changes(each) and each is not node}
    before = [each for each, first in memory.items() if first is root and order[each] < here]
    read = [each for each in before if any(order[user] > here for user in each.users)]
    paths = {each: _path(each, root) for each in (source(node), *read)}
    spans = {link: _span(link) for link in paths[source(node)] or ()}
    if None in paths.values() or None in spans.values() or (whole := as_new(graph, node)) is None:
        return
    if not node.users and source(node) not in read:
        del paths[source(node)]
    with graph.inserting_before(node):
        for link, span in reversed(spans.items()):
            before_it = source(link)
            is_ours = bool(before_it.meta.get("joined")) and memory[before_it] not in changed
            whole = _joined(graph, node, before_it, whole, cast(Span, span), is_ours)
        again = {root: whole}
        for link in dict.fromkeys(link for path in paths.values() for link in path or ()):
            again[link] = graph.node_copy(link, lambda each: again.get(each, each))
    for each in read:
        each.replace_all_uses_with(again[each], delete_user_cb=lambda user: order.get(user, here) > here)
    if node.users:
        node.replace_all_uses_with(again[source(node)])
    graph.erase_node(node)


def _path(alias: fx.Node, root: fx.Node) -> list[fx.Node] | None:
    """Return the views between a value and one in its memory, in order; None if another operation is among them."""
    found: list[fx.Node] = []
    while alias is not root:
        if packet(alias) not in VIEWS and getattr(alias.target, "__name__", "") != "getitem":
            return None
        found.append(alias)
        alias = source(alias)
    return found[::-1]


def _span(link: fx.Node) -> Span | None:
    """Return what a view takes of an axis; None if that is not one part of an axis of known size."""
    if packet(link) not in (aten.slice, aten.select):
        return None
    told, shape = values(link), source(link).meta["val"].shape
    axis, size = told["dim"] % len(shape), shape[told["dim"]]
    if packet(link) is aten.slice:
        if takes_all(told):
            return WHOLE
        if not isinstance(size, int) or not all(isinstance(n, int | None) for n in (told["start"], told["end"])):
            return None
        places = range(size)[told["start"] : told["end"] : told["step"]]
        few = places.step == 1 or len(places) <= MOST_APART or len(places) * places.step == size
        return Span(axis, places, size, is_one=False) if places and few else None
    if not (isinstance(size, int) and isinstance(told["index"], int)):
        return None
    at = told["index"] % size
    return Span(axis, range(at, at + 1), size, is_one=True)


def _joined(graph: fx.Graph, node: fx.Node, whole: fx.Node, part: fx.Node, span: Span, is_ours: bool) -> fx.Node:
    """Write a whole with another part; `node` is the call that changed it.

    Args:
        is_ours: whether the whole was joined here and is as it was; its pieces are then joined anew.
    """
    if span is WHOLE:
        return part
    axis, places, size, is_one = span
    part = inserted(graph, node, aten.unsqueeze.default, part, axis) if is_one else part
    if places.step == 1:
        blocks = [(places.start, places.stop, part)]
    elif places == range(places.start, size, places.step) and size == len(places) * places.step:
        return _woven(graph, node, whole, part, span, is_ours)
    else:
        single = (inserted(graph, node, aten.slice.Tensor, part, axis, n, n + 1) for n in range(len(places)))
        blocks = [(place, place + 1, block) for place, block in zip(places, single, strict=True)]
    pieces: list[fx.Node] = []
    done = 0
    for first, last, block in blocks:
        pieces += [*_pieces(graph, node, whole, axis, (done, first), is_ours), block]
        done = last
    pieces += _pieces(graph, node, whole, axis, (done, size), is_ours)
    if len(pieces) == 1:
        return pieces[0]
    made = inserted(graph, node, aten.cat.default, pieces, axis)
    made.meta["joined"] = True
    return made


def _woven(graph: fx.Graph, node: fx.Node, whole: fx.Node, part: fx.Node, span: Span, is_ours: bool) -> fx.Node:
    """Write a whole with another part at every so many places: the parts at each offset, laid side by side."""
    axis, places, size, _ = span
    before = whole.meta.get("woven") if is_ours else None
    if before is not None and before[0] == axis and len(before[1]) == places.step:
        held = [*before[1]]
    else:
        held = [inserted(graph, node, aten.slice.Tensor, whole, axis, n, size, places.step) for n in range(places.step)]
    parts = [*held[: places.start], part, *held[places.start + 1 :]]
    beside = inserted(graph, node, aten.stack.default, parts, axis + 1)
    laid = inserted(graph, node, aten.flatten.using_ints, beside, axis, axis + 1)
    made = inserted(graph, node, aten.clone.default, laid)  # its own memory, for later changes
    made.meta |= {"joined": True, "woven": (axis, parts)}
    return made


def _pieces(
    graph: fx.Graph, node: fx.Node, whole: fx.Node, axis: int, ends: tuple[int, int], is_ours: bool
) -> list[fx.Node]:
    """Return the pieces of a part of an axis, from the first of `ends` up to the second."""
    start, stop = ends
    if start == stop:
        return []
    if not is_ours or packet(whole) is not aten.cat or whole.args[1] != axis:
        return [inserted(graph, node, aten.slice.Tensor, whole, axis, start, stop)]
    found: list[fx.Node] = []
    at = 0
    for piece in cast(list[fx.Node], whole.args[0]):
        size = piece.meta["val"].shape[axis]
        first, last = max(start - at, 0), min(stop - at, size)
        if first < last:
            found += [piece] if last - first == size else _pieces(graph, node, piece, axis, (first, last), False)
        at += size
    return found
