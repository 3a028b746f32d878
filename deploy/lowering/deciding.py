"""Rules for calls that compare numbers, and for calls that choose between two values by the result.

A truth is 1 or 0 in a program.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import torch
from torch import fx

from deploy.lowering.builder import Builder, Rule, numbers
from deploy.lowering.combining import Operand, combined, operand, opposite
from deploy.lowering.truths import LOGIC, is_whole
from deploy.operations.functions import Function
from models.graph.calls import COMPARISONS, NOT, is_truth, values

aten = torch.ops.aten

KEPT = (torch.float32, torch.float64)
"""Types to which numbers may be converted."""
KEPT_COUNTS = (*KEPT, torch.int32, torch.int64)
"""Types to which counts of truths may be converted."""
KEPT_TRUTHS = (*KEPT_COUNTS, torch.bool)
"""Types to which truths may be converted."""


def compare(kind: str) -> Rule:
    def rule(builder: Builder, node: fx.Node) -> int:
        told, rank = values(node), len(builder.given())
        return combined(builder, kind, [operand(builder, told[name], rank) for name in ("self", "other")])

    return rule


def logic(kind: str) -> Rule:
    """Return the rule for a call on truths, as `kind` of Combine on 1 and 0."""

    def rule(builder: Builder, node: fx.Node) -> int:
        if not all(is_truth(values(node)[name]) for name in ("self", "other")):
            raise builder.refused("numbers that are not the result of a comparison")
        return compare(kind)(builder, node)  # type: ignore[return-value]

    return rule


def inverse(builder: Builder, node: fx.Node) -> int:
    """Add `not`: whether a value is 0."""
    if not is_truth(values(node)["self"]):
        raise builder.refused("numbers that are not the result of a comparison")
    return opposite(builder, builder.source())


def where(builder: Builder, node: fx.Node) -> int:
    told, rank = values(node), len(builder.given())
    one, other = (operand(builder, told[name], rank, hides=True) for name in ("self", "other"))
    return _chosen(builder, operand(builder, told["condition"], rank), one, other)


def masked_fill(builder: Builder, node: fx.Node) -> int:
    told, rank = values(node), len(builder.given())
    value, source = (operand(builder, told[name], rank, hides=True) for name in ("value", "self"))
    return _chosen(builder, operand(builder, told["mask"], rank), value, source)


def _chosen(builder: Builder, truth: Operand, one: Operand, other: Operand) -> int:
    """Add one value where a truth is 1, the other where it is 0."""
    unless = opposite(builder, truth) if isinstance(truth, int) else (truth == 0).astype(np.float32)
    both = [_kept(builder, one, truth, ".one"), _kept(builder, other, unless, ".other")]
    parts = [each for each in both if isinstance(each, int) or each.any()]
    return parts[0] if len(parts) == 1 and isinstance(parts[0], int) else combined(builder, "add", both)


def _kept(builder: Builder, value: Operand, truth: Operand, part: str) -> Operand:
    """Return a value where a truth is 1, else 0."""
    if isinstance(value, np.ndarray) and isinstance(truth, np.ndarray):
        return np.where(truth != 0, value, np.float32(0))
    return (
        value if isinstance(value, np.ndarray) and not value.any() else combined(builder, "keep", [value, truth], part)
    )


def threshold(builder: Builder, node: fx.Node) -> int:
    """Add x where x > threshold, else the value."""
    told, source = values(node), builder.source()
    rank = len(builder.given())
    least, value = (numbers(float(told[name])).reshape((1,) * rank) for name in ("threshold", "value"))
    return _chosen(builder, combined(builder, "gt", [source, least], ".above"), source, value)


def hardshrink(builder: Builder, node: fx.Node) -> int:
    """Add x where |x| > lambda, else 0."""
    source = builder.source()
    size = builder.add(Function, source, part=".size", kind="abs")
    end = numbers(float(values(node)["lambd"])).reshape((1,) * len(builder.given()))
    return combined(builder, "keep", [source, combined(builder, "gt", [size, end], ".above")])


def converted(builder: Builder, node: fx.Node) -> int:
    """Pass a conversion to fp32 or fp64, or of a truth to whole numbers; refuse others."""
    kinds = [a for a in (*node.args, *node.kwargs.values()) if isinstance(a, torch.dtype)]
    given = node.args[0]
    known = KEPT_TRUTHS if is_truth(given) else KEPT_COUNTS if is_whole(given) else KEPT
    if any(kind not in known for kind in kinds):
        raise builder.refused(f"a conversion to {kinds[0]}")
    return builder.source()


DECIDING: dict[Any, Rule] = {
    **{call: compare(kind) for call, kind in COMPARISONS.items()},
    **{call: logic(kind) for call, kind in LOGIC.items()},
    **dict.fromkeys(NOT, inverse), **dict.fromkeys((aten.to, aten._to_copy), converted),
    aten.where: where, aten.masked_fill: masked_fill, aten.threshold: threshold, aten.hardshrink: hardshrink,
}  # fmt: skip
