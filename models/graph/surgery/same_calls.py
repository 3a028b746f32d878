"""alike(one, other): whether two captured copies of a network compute the same but for their widths."""

from __future__ import annotations

from itertools import zip_longest
from typing import Any

import torch
from torch import fx
from torch.utils._pytree import tree_leaves

from models.graph.calls import packet
from models.graph.channels.labels import PARTS
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


def _said(node: fx.Node) -> tuple[Any, ...]:
    numbers = [leaf for leaf in tree_leaves((node.args, node.kwargs)) if not isinstance(leaf, fx.Node)]
    return node.op, node.target, [] if packet(node) in SIZED or node.op == "get_attr" else numbers
