"""Channel shuffles (ShuffleNet, arXiv 1707.01083), each in one pass over channels-last memory.

A shuffle splits the channels in groups, swaps groups and members, and joins them. PyTorch copies the value into the other
memory format and back for it, forward and backward.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import NamedTuple

import torch
from torch import Tensor, fx, nn
from torch.fx.node import map_arg

from models.graph.calls import BATCH, aten, packet, source
from models.graph.flow import readers
from models.graph.normal import NormalForm, type_and_device
from models.layers.quantizers.base import Quantized

STEPS = frozenset({
    aten.reshape, aten._unsafe_view, aten.flatten, aten.unflatten, aten.transpose, aten.permute, aten.contiguous,
    aten.clone, aten.channel_shuffle,
})  # fmt: skip
"""The operations that code for a shuffle consists of."""
LAST = torch.channels_last


class Shuffle(nn.Module):
    """A replacement for the nodes of a channel shuffle, in training and evaluation: it moves the same numbers or codes.

    Shapes: (B, C, H, W) -> the same. Channel c comes to place (c mod C/groups) * groups + c // (C/groups).

    Args:
        nodes: what it replaces, in order.
        keeps: whether these nodes return channels-last memory for such an input.
    """

    def __init__(self, nodes: Sequence[fx.Node], groups: int, keeps: bool) -> None:
        super().__init__()
        self._nodes = (*nodes,)
        self.groups, self.keeps = groups, keeps

    def forward(self, x: Tensor | Quantized) -> Tensor | Quantized:
        return x._replace(codes=self._moved(x.codes)) if isinstance(x, Quantized) else self._moved(x)

    def _moved(self, x: Tensor) -> Tensor:
        """Return the moved numbers. In evaluation their memory format stays the network's own, as sums depend on it."""
        if not (self.training or self.keeps) or not x.is_contiguous(memory_format=LAST):
            return moved(self._nodes, x)
        apart = x.permute(0, 2, 3, 1).unflatten(3, (self.groups, -1))
        return apart.transpose(3, 4).flatten(3).permute(0, 3, 1, 2)


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


def moved(nodes: Sequence[fx.Node], x: Tensor) -> Tensor:
    """Return what nodes make of the first one's input, each from the result of the one before."""
    for result in _results(nodes, x):
        x = result
    return x


def _results(nodes: Sequence[fx.Node], x: Tensor) -> Iterator[Tensor]:
    """Yield what each node gives."""
    before, count = source(nodes[0]), len(x)

    def value(node: fx.Node) -> Tensor | int:
        return x if node is before else count

    for node in nodes:
        args, kwargs = map_arg((node.args, node.kwargs), value)
        before, x = node, node.target(*args, **kwargs)  # type: ignore[operator]
        yield x


def _from(first: fx.Node) -> Found | None:
    """Return the longest shuffle that begins with a node."""
    found, nodes, at = None, list[fx.Node](), first
    before = source(first) if packet(first) in STEPS else None
    if not isinstance(before, fx.Node) or len(_sizes(before)) != 3:
        return None
    while packet(at) in STEPS and all(node is before or _is_batch(node) for node in at.all_input_nodes):
        nodes.append(at)
        if _sizes(at) == _sizes(source(first)):
            found = _examined(nodes) or found
        behind = readers(at)
        if len(behind) != 1 or len(at.users) != 1:
            break
        before, at = at, behind[0]
    return found


def _sizes(node: fx.Node) -> tuple[int, ...]:
    """Return the sizes of a node's value behind the number of pictures; () if it has none, or if others depend on it."""
    shape = node.meta.get("shape")
    behind = shape[1:] if isinstance(shape, tuple) else ()
    return () if None in behind else behind


def _is_batch(node: fx.Node) -> bool:
    """Return whether a node gives the number of pictures."""
    return packet(node) is aten.sym_size and node.args[1:] == (0,)


def _examined(nodes: Sequence[fx.Node]) -> Found | None:
    """Return the shuffle that nodes are, from what they make of numbered places; None: they move them in another way."""
    channels, high, wide = _sizes(source(nodes[0]))
    x = torch.arange(BATCH * channels * high * wide).view(BATCH, channels, high, wide).contiguous(memory_format=LAST)
    try:
        results = [*_results(nodes, x)]
    except RuntimeError:  # the value has several rows a picture, so sizes that the code gives do not fit
        return None
    if any(_sizes(node) != result.shape[1:] for node, result in zip(nodes, results, strict=True)):
        return None
    found = results[-1]
    order = found[0, :, 0, 0] // (high * wide)
    step = int(order[1]) if channels > 1 else 0
    if step < 2 or channels % step or step == channels:
        return None
    shuffled = torch.arange(channels).view(-1, step).t().flatten()
    if not torch.equal(order, shuffled) or not torch.equal(found, x[:, shuffled]):
        return None
    return Found([*nodes], Shuffle(nodes, channels // step, found.is_contiguous(memory_format=LAST)))
