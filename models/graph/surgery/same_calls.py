"""Whether two captured copies of a network compute the same but for their widths."""

from __future__ import annotations

from itertools import zip_longest
from typing import Any

import torch
from torch import fx
from torch.utils._pytree import tree_leaves

from models.graph.calls import packet
from models.graph.channels.labels import ELEMENTWISE, PARTS
from models.graph.normal import NormalForm

aten = torch.ops.aten

SIZED = PARTS | {
    aten.expand, aten.zeros, aten.ones, aten.new_zeros, aten.new_ones, aten.empty, aten.conv1d, aten.conv2d,
}  # fmt: skip
"""Calls whose numbers may be widths, as the groups of a depthwise call. Numbers in other calls change what a channel computes."""


def alike(one: NormalForm, other: NormalForm) -> bool:
    """Return whether two captured copies run the same calls, with the same numbers in all that are not of SIZED."""
    pairs = zip_longest(one.captured.graph.nodes, other.captured.graph.nodes)
    return all(a is not None and b is not None and _said(a) == _said(b) for a, b in pairs)


def other_number(one: NormalForm, other: NormalForm) -> str:
    """Return the name of a call that computes with a width, as `x / x.shape[1]`: the copies have other numbers there.

    Returns:
        "" without one, and if the copies run other calls.
    """
    pairs = [*zip_longest(one.captured.graph.nodes, other.captured.graph.nodes)]
    if any(a is None or b is None or a.target != b.target for a, b in pairs):
        return ""
    found = (a for a, b in pairs if packet(a) in ELEMENTWISE and _said(a) != _said(b))
    return next((f"{packet(a).__name__} of {a.meta.get('owner') or 'the network'}" for a in found), "")


def _said(node: fx.Node) -> tuple[Any, ...]:
    numbers = [leaf for leaf in tree_leaves((node.args, node.kwargs)) if not isinstance(leaf, fx.Node)]
    return node.op, node.target, [] if packet(node) in SIZED or node.op == "get_attr" else numbers
