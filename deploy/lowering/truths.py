"""Values that are no floating-point numbers: truths, which are 1 and 0 in a program, and counts of them.

PyTorch computes with truths and whole numbers in other ways: a sum of two truths is `or`, and whole numbers wrap. So a program
has the calls of ON_TRUTHS and ON_COUNTS alone for them, until code makes floating-point numbers of them.
"""

from __future__ import annotations

import operator
from typing import Any

import torch
from torch import fx

from deploy.lowering.builder import Builder
from deploy.lowering.growing import GROWING
from deploy.lowering.moves import MOVES
from deploy.lowering.picking import PICKING
from models.graph import calls
from models.graph.calls import is_truth, packet, source

aten = torch.ops.aten

LOGIC = {call: {"and": "mul", "or": "max", "xor": "ne"}[kind] for call, kind in calls.LOGIC.items()}
"""The calls on two truths, and the kinds of Combine that they are on 1 and 0."""
CONVERSIONS = (aten.to, aten._to_copy)
ANY_NUMBERS = frozenset({*MOVES, *PICKING, *GROWING, *CONVERSIONS, operator.getitem})
"""Calls that give the numbers that they read."""
ON_TRUTHS = ANY_NUMBERS | {
    *calls.COMPARISONS, *LOGIC, *calls.NOT, aten.add, aten.mul, aten.maximum, aten.minimum, aten.amax, aten.amin, aten.max, aten.min,
    aten.where,
}  # fmt: skip
"""Calls that may give truths."""
ON_COUNTS = ANY_NUMBERS | {aten.sum, aten.cumsum}
"""Calls that may give whole numbers: truths as 1 and 0, and their counts."""


def is_whole(value: Any) -> bool:
    """Return whether a value of a graph holds integers."""
    kind = value.meta.get("type") if isinstance(value, fx.Node) else None
    return kind is not None and kind is not torch.bool and not (kind.is_floating_point or kind.is_complex)


def check(builder: Builder, node: fx.Node) -> None:
    """Refuse a call that gives truths or whole numbers in a way that a program would compute differently.

    Raises:
        UserError: exit 2, naming the call.
    """
    what: Any = node.target if node.target is operator.getitem else packet(node)
    if is_truth(node) and what not in ON_TRUTHS:
        raise builder.refused("it gives truths")
    counts = what in ON_COUNTS and (what in ANY_NUMBERS or is_truth(source(node)) or is_whole(source(node)))
    if is_whole(node) and not (counts and node.meta["type"] in (torch.int32, torch.int64)):
        raise builder.refused("it gives whole numbers")
