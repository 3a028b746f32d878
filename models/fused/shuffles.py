"""Which nodes of a network are a channel shuffle: told by what they make of numbered places, however the code is written."""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import torch
from torch import fx

from engine.errors import no_memory
from models.fused.layout import is_last
from models.fused.shuffle import Shuffle, last, results
from models.graph.calls import BATCH, aten, packet, source
from models.graph.flow import only_reader
from models.graph.normal import NormalForm, type_and_device

STEPS = frozenset({
    aten.reshape, aten._unsafe_view, aten.flatten, aten.unflatten, aten.transpose, aten.permute, aten.contiguous,
    aten.clone, aten.channel_shuffle,
})  # fmt: skip
"""The operations that code for a shuffle consists of."""


class Found(NamedTuple):
    """A shuffle of a network: its nodes, in order, and what replaces them."""

    nodes: list[fx.Node]
    module: Shuffle


def shuffles(form: NormalForm) -> dict[fx.Node, Found]:
    """Return the shuffles of a network on a CPU, by their first nodes; none on a GPU, where they were never measured."""
    if type_and_device(form)[1].type != "cpu":
        return {}
    found: dict[fx.Node, Found] = {}
    inside: set[fx.Node] = set()
    for node in form.captured.graph.nodes:
        if node not in inside and (shuffle := _from(node)) is not None:
            found[node] = shuffle
            inside |= {*shuffle.nodes}
    return found


def _from(first: fx.Node) -> Found | None:
    """Return the longest shuffle that begins with a node; None if there is none."""
    before = source(first) if packet(first) in STEPS else None
    whole = _sizes(before) if isinstance(before, fx.Node) else None
    if whole is None or len(whole) != 3:
        return None
    found, nodes, at = None, list[fx.Node](), first
    while packet(at) in STEPS and all(node is before or _is_count(node) for node in at.all_input_nodes):
        nodes.append(at)
        if _sizes(at) == whole:
            found = _examined(nodes, whole) or found
        reader = only_reader(at)
        if reader is None:
            break
        before, at = at, reader
    return found


def _sizes(node: fx.Node) -> tuple[int, ...] | None:
    """Return the sizes of a node's value without the first; None if one of these depends on the number of pictures."""
    shape = node.meta.get("shape")
    return shape[1:] if isinstance(shape, tuple) and None not in shape[1:] else None


def _is_count(node: fx.Node) -> bool:
    """Return whether a node gives the first size of a value."""
    return packet(node) is aten.sym_size and node.args[1:] == (0,)


def _examined(nodes: Sequence[fx.Node], whole: tuple[int, ...]) -> Found | None:
    """Return the shuffle that nodes are; None if they move numbers in another way.

    Args:
        whole: channels, rows and columns of the value.
    """
    x, one = last(BATCH, *whole), last(1, *whole)
    try:
        every = [*results(nodes, x)]
        keeps = is_last(every[-1]) and is_last([*results(nodes, one)][-1])
    except RuntimeError as fault:  # the value has several rows a picture, so sizes that the code gives do not fit
        if no_memory(fault):
            raise
        return None
    if any(_sizes(node) != result.shape[1:] for node, result in zip(nodes, every, strict=True)):
        return None
    channels, high, wide = whole
    order = every[-1][0, :, 0, 0] // (high * wide)
    step = int(order[1]) if channels > 1 else 0
    if step < 2 or channels % step or step == channels:
        return None
    shuffled = torch.arange(channels).view(-1, step).t().flatten()
    if not torch.equal(order, shuffled.int()) or not torch.equal(every[-1], x[:, shuffled]):
        return None
    return Found([*nodes], Shuffle(nodes, channels // step, keeps))
