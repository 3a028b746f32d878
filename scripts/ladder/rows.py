"""The rows of the results ladder and the steps that make their files (steps.py). runner.py runs the steps."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from fnmatch import fnmatch

from engine.cli.archs import prefix
from engine.cli.argtypes import nearest
from engine.errors import UserError
from scripts.ladder import steps


@dataclass(frozen=True)
class LadderRow:
    """One row of the table: the step that makes its file, and the accuracy of that step that it shows."""

    name: str
    label: str
    step: str
    metric: str = "final"


def _same(name: str, label: str) -> LadderRow:
    return LadderRow(name, label, name)


ROWS = (
    _same("nin", "NIN, 5x5 second stage"),
    _same("nin_3x3", "NIN, 3x3 second stage"),
    _same("nin_gc_plain", "grouped NIN, plain widths"),
    _same("nin_gc", "grouped NIN, wide"),
    _same("sparse", "NIN sparse"),
    LadderRow("prune50_raw", "pruned 50 %, before BN re-estimation", "prune50", "sliced"),
    _same("prune50", "pruned 50 %, BN re-estimated"),
    _same("prune50_refine", "pruned 50 %, refined"),
    _same("prune50_x8", "pruned 50 % to multiples of 8"),
    _same("prune50_x8_refine", "pruned 50 % to multiples of 8, refined"),
    _same("prune50_x16", "pruned 50 % to multiples of 16"),
    _same("prune50_x16_refine", "pruned 50 % to multiples of 16, refined"),
    _same("prune50_scratch", "pruned widths from scratch (control)"),
    _same("gc_sparse", "grouped NIN sparse"),
    _same("gc_prune40", "grouped, pruned 40 %"),
    _same("gc_prune40_refine", "grouped, pruned 40 %, refined"),
    _same("w8a8", "DoReFa W8A8"),
    _same("w4a8", "DoReFa W4A8"),
    _same("w4a4", "DoReFa W4A4"),
    _same("w2a2", "DoReFa W2A2"),
    _same("lsq_w4a4", "LSQ W4A4"),
    _same("lsq_w2a2", "LSQ W2A2"),
    _same("int8_q0_fold0", "INT8 symmetric"),
    _same("int8_q0_fold1", "INT8 symmetric, BN folded in training"),
    _same("int8_q1_fold0", "INT8 asymmetric"),
    _same("int8_q1_fold1", "INT8 asymmetric, BN folded in training"),
    _same("ptq_minmax", "INT8 without training, minmax"),
    _same("ptq_percentile", "INT8 without training, percentile"),
    _same("ptq_mse", "INT8 without training, mse"),
    _same("ptq_kl", "INT8 without training, kl"),
    _same("wba32", "W1A32"),
    _same("wta32", "WtA32"),
    _same("wbab", "W1A1"),
    _same("wbab_no_scale", "W1A1 without scale"),
    _same("wtab", "WtA1"),
    _same("wtab_no_scale", "WtA1 without scale"),
    _same("prune50_wtab", "pruned 50 % + WtA1"),
    _same("gc_prune40_wtab", "grouped + pruned 40 % + WtA1"),
    _same("depthwise_standard", "depthwise experiment: standard"),
    _same("depthwise_separable", "depthwise experiment: separable"),
    _same("depthwise_separable_wide", "depthwise experiment: separable, doubled 1x1"),
)

GROUPS = {
    "all": ("*",),
    "headline": ("nin", "prune50_refine", "w8a8", "w4a4", "int8_q1_fold0", "wbab", "wtab"),
}


def of(arch: str) -> list[LadderRow]:
    """Return the rows of a network: for NIN all of them, for others the rows that need no relatives of NIN."""
    if arch == steps.NETWORK:
        return list(ROWS)
    own = {"nin": prefix(arch), "sparse": f"{prefix(arch)} sparse"}
    rows = [row for row in ROWS if steps.chain(row.step)[0].name in steps.OF_ANY]
    return [replace(row, label=own.get(row.name, row.label)) for row in rows]


def of_group(name: str, rows: Sequence[LadderRow] = ROWS) -> list[LadderRow]:
    """Return those of `rows` that a group of GROUPS names, in the order of the ladder."""
    return [row for row in rows if any(fnmatch(row.name, pattern) for pattern in GROUPS[name])]


def choose(names: Sequence[str], arch: str = steps.NETWORK) -> list[LadderRow]:
    """Return rows of a network by name, pattern (`int8*`) or group (`all`, `headline`), in the order of the ladder.

    Raises:
        UserError: exit 2 for a name that matches no row.
    """
    rows, wanted = of(arch), set[str]()
    for name in ",".join(names).split(","):
        patterns = GROUPS.get(name, (name,))
        found = {row.name for row in rows for pattern in patterns if fnmatch(row.name, pattern)}
        if not found:
            known = [*GROUPS, *(row.name for row in rows)]
            raise UserError(f"no row {name!r} in the ladder", nearest(name, known) or f"one of {', '.join(known)}")
        wanted |= found
    return [row for row in rows if row.name in wanted]
