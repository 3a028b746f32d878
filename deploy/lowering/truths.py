"""is_truth(builder, value): whether a value of a graph holds truths, which are 1 and 0 in a program."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, fx

from deploy.lowering.builder import Builder
from deploy.lowering.moves import MOVES
from models.graph.calls import packet, source

aten = torch.ops.aten

COMPARISONS = {getattr(aten, kind): kind for kind in ("eq", "ne", "gt", "ge", "lt", "le")}
"""The calls that compare two values, and their kinds of Combine."""
LOGIC = {
    aten.logical_and: "mul", aten.bitwise_and: "mul", aten.logical_or: "max", aten.bitwise_or: "max",
    aten.logical_xor: "ne", aten.bitwise_xor: "ne",
}  # fmt: skip
"""The calls on two truths, and the kinds of Combine that they are on 1 and 0."""
NOT = (aten.logical_not, aten.bitwise_not)


def is_truth(builder: Builder, value: Any) -> bool:
    if not isinstance(value, fx.Node):
        return False
    if value in builder.held:
        held = builder.held[value]
        return isinstance(held, Tensor) and held.dtype is torch.bool
    what = packet(value)
    to_truth = what in (aten.to, aten._to_copy) and torch.bool in (*value.args, *value.kwargs.values())
    if what in MOVES or to_truth:
        first = source(value)
        return is_truth(builder, first[0] if isinstance(first, (list, tuple)) else first)
    return what in COMPARISONS or what in LOGIC or what in NOT
