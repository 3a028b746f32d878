"""The rows of the results ladder: which commands each one is made of. How they are run: results.py."""

from __future__ import annotations

import json
import string
from dataclasses import dataclass
from fnmatch import fnmatch
from pathlib import Path
from typing import Any

from engine.argtypes import nearest
from engine.errors import BAD_CHECKPOINT, UserError

_GC_PLAIN = "192,160,96,192,192,192,192,192"
_DEPTHWISE = "32,64,128,256,256,256,512,1024"

STEPS = {
    "nin": "prune.train --arch nin",
    "nin_3x3": "prune.train --arch nin_3x3",
    "nin_gc_plain": f"prune.train --arch nin_gc --cfg {_GC_PLAIN}",
    "nin_gc": "prune.train --arch nin_gc",
    "sparse": "prune.train --arch nin -sr --s 0.0001",
    "prune50": "prune.normal_regular --percent 0.5 --model {sparse}",
    "prune50_refine": "prune.train --refine {prune50}",
    "prune50_x8": "prune.normal_regular --percent 0.5 --normal_regular 8 --model {sparse}",
    "prune50_x8_refine": "prune.train --refine {prune50_x8}",
    "prune50_x16": "prune.normal_regular --percent 0.5 --normal_regular 16 --model {sparse}",
    "prune50_x16_refine": "prune.train --refine {prune50_x16}",
    "prune50_scratch": "prune.train --from_scratch {prune50}",
    "gc_sparse": "prune.train --arch nin_gc -sr --s 0.001",
    "gc_prune40": "prune.gc --percent 0.4 --model {gc_sparse}",
    "gc_prune40_refine": "prune.train --refine {gc_prune40}",
    "w8a8": "quant.wqaq --Wbits 8 --Abits 8 --refine {nin}",
    "w4a8": "quant.wqaq --Wbits 4 --Abits 8 --refine {nin}",
    "w4a4": "quant.wqaq --Wbits 4 --Abits 4 --refine {nin}",
    "w2a2": "quant.wqaq --Wbits 2 --Abits 2 --refine {nin}",
    "int8_q0_fold0": "quant.wqaq --q_type 0 --bn_fold 0 --refine {nin}",
    "int8_q0_fold1": "quant.wqaq --q_type 0 --bn_fold 1 --refine {nin}",
    "int8_q1_fold0": "quant.wqaq --q_type 1 --bn_fold 0 --refine {nin}",
    "int8_q1_fold1": "quant.wqaq --q_type 1 --bn_fold 1 --refine {nin}",
    "ptq_minmax": "quant.ptq --calibrate minmax --model {nin}",
    "ptq_percentile": "quant.ptq --calibrate percentile --model {nin}",
    "ptq_mse": "quant.ptq --calibrate mse --model {nin}",
    "ptq_kl": "quant.ptq --calibrate kl --model {nin}",
    "wba32": "quant.wbwtab --W 2 --A 32 --refine {nin}",
    "wta32": "quant.wbwtab --W 3 --A 32 --refine {nin}",
    "wbab": "quant.wbwtab --W 2 --A 2 --refine {nin}",
    "wbab_no_scale": "quant.wbwtab --W 2 --A 2 --no-scale --refine {nin}",
    "wtab": "quant.wbwtab --W 3 --A 2 --refine {nin}",
    "wtab_no_scale": "quant.wbwtab --W 3 --A 2 --no-scale --refine {nin}",
    "prune50_wtab": "quant.wbwtab --W 3 --A 2 --refine {prune50_refine}",
    "gc_prune40_wtab": "quant.wbwtab --W 3 --A 2 --refine {gc_prune40_refine}",
    "depthwise_standard": f"prune.train --arch nin --cfg {_DEPTHWISE}",
    "depthwise_separable": "prune.train --type 2",
    "depthwise_separable_wide": "prune.train --arch separable_wide",
}
"""A step is one command; {name} stands for the file that another step leaves."""


@dataclass(frozen=True)
class Row:
    """One row of the table: the step that makes its file, and which of that command's accuracies it shows."""

    name: str
    label: str
    step: str
    figure: str = "final"


def _same(name: str, label: str) -> Row:
    return Row(name, label, name)


ROWS = (
    _same("nin", "NIN, 5x5 second stage"),
    _same("nin_3x3", "NIN, 3x3 second stage"),
    _same("nin_gc_plain", "grouped NIN, plain widths"),
    _same("nin_gc", "grouped NIN, wide"),
    _same("sparse", "NIN sparse"),
    Row("prune50_raw", "pruned 50 %, before BN re-estimation", "prune50", "sliced"),
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


def choose(names: list[str]) -> list[Row]:
    """Rows by name, by pattern (`int8*`) or by group (`all`, `headline`), in the order of the ladder.

    Raises:
        UserError: exit 2 for a name that matches none.
    """
    wanted: set[str] = set()
    for name in ",".join(names).split(","):
        patterns = GROUPS.get(name, (name,))
        found = {row.name for row in ROWS for pattern in patterns if fnmatch(row.name, pattern)}
        if not found:
            known = [*GROUPS, *(row.name for row in ROWS)]
            raise UserError(f"no row {name!r} in the ladder", nearest(name, known) or f"one of {', '.join(known)}")
        wanted |= found
    return [row for row in ROWS if row.name in wanted]


def parents(step: str) -> list[str]:
    """The steps whose files this one reads."""
    return [field for _, field, _, _ in string.Formatter().parse(STEPS[step]) if field]


def chain(step: str) -> list[str]:
    """A step and all before it, in order."""
    return [name for parent in parents(step) for name in chain(parent)] + [step]


def epochs(step: str, total: int | None) -> int | None:
    """How long a step trains when a float training takes `total` epochs: refining and quantizing take half. None: not at all, or as the recipe says."""
    module = STEPS[step].split()[0]
    if total is None or module not in ("prune.train", "quant.wqaq", "quant.wbwtab"):
        return None
    return max(1, total // 2) if "--refine" in STEPS[step] else total


def load(path: Path, *keys: str, hint: str = "delete it: its row is made again") -> dict[str, Any]:
    """A JSON file of the ladder's own: of a row, of a step, or of the ladder itself.

    Raises:
        UserError: exit 3 naming the file if it is damaged or lacks one of `keys`.
    """
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError) as fault:
        raise UserError(f"{path} is damaged: {fault}", hint, BAD_CHECKPOINT) from fault
    if not isinstance(content, dict) or not content.keys() >= set(keys):
        raise UserError(f"{path} is damaged: it lacks {', '.join(keys) or 'everything'}", hint, BAD_CHECKPOINT)
    return content
