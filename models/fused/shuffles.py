"""Which nodes of a network are a channel shuffle: told by what they make of numbered places, however the code is written."""

from __future__ import annotations

from typing import NamedTuple

import torch
from torch import Tensor, fx

from engine.errors import no_memory
from models.fused.layout import is_last
from models.fused.shuffle import Shuffle, results
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
    nodes = list[fx.Node]()
    at: fx.Node | None = first
    while at is not None and packet(at) in STEPS and all(n is before or _is_count(n) for n in at.all_input_nodes):
        nodes.append(at)
        before, at = at, only_reader(at)
    ends = (count for count in range(len(nodes), 0, -1) if _sizes(nodes[count - 1]) == whole)
    return next(filter(None, (_examined(nodes[:count], whole) for count in ends)), None)


def _sizes(node: fx.Node) -> tuple[int, ...] | None:
    """Return the sizes of a node's value without the first; None if one of these depends on the number of pictures."""
    shape = node.meta.get("shape")
    return shape[1:] if isinstance(shape, tuple) and None not in shape[1:] else None


def _is_count(node: fx.Node) -> bool:
    """Return whether a node gives the first size of a value."""
    return packet(node) is aten.sym_size and node.args[1:] == (0,)


def _examined(nodes: list[fx.Node], whole: tuple[int, ...]) -> Found | None:
    """Return the shuffle that nodes are; None if they move numbers in another way.

    Args:
        whole: channels, rows and columns of the value.
    """
    x, one = _numbered(BATCH, *whole), _numbered(1, *whole)
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
    return Found(nodes, Shuffle(nodes, channels // step, keeps))


def _numbered(pictures: int, channels: int, high: int, wide: int) -> Tensor:
    """Return a value whose numbers are their own places, 0 and up, in channels-last memory."""
    made = torch.empty((pictures, channels, high, wide), dtype=torch.int32, memory_format=torch.channels_last)
    return made.copy_(torch.arange(made.numel(), dtype=torch.int32).view(made.shape))
