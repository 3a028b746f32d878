"""What a network was made by, in one word for pictures: the method of a checkpoint or a row of the ladder, and its colour.

Every picture takes its colours from here. They are matplotlib's, C0 to C9 and a lighter C3, so that needs no matplotlib.
"""

from __future__ import annotations

import re
from collections.abc import Collection, Iterable, Sequence

from engine.checkpoint.format import Checkpoint
from engine.checkpoint.history import Calibrate, Quantize, prunings
from quant.spec import QuantSpec

METHODS = {
    "float": ("#1f77b4", r"^(nin|sparse|gc_sparse|depthwise)(_|$)"),
    "pruned": ("#ff7f0e", r"^(gc_)?prune\d+(_|$)"),
    "DoReFa": ("#2ca02c", r"(^|_)w\d+a\d+(_|$)"),
    "INT8": ("#d62728", r"^(int8|ptq)(_|$)"),
    "affine": ("#ff9896", r"^affine(_|$)"),
    "ternary and binary": ("#9467bd", r"(^|_)w[bt]a([bt]|\d+)(_|$)"),
    "LSQ": ("#8c564b", r"^lsq(_|$)"),
}
"""The methods, each with its colour and what the names of its rows look like; the last one that fits a name holds.

INT8 is the affine quantizer at 8 bits; at other bits it is a lighter shade.
"""
OTHERS = ("#e377c2", "#7f7f7f", "#bcbd22", "#17becf")
"""Colours of methods from elsewhere. The fifth has the first colour again, with another marker."""

_OF_KIND = {
    "dorefa": "DoReFa", "binary": "ternary and binary", "ternary": "ternary and binary", "lsq": "LSQ",
}  # fmt: skip


def of_row(name: str) -> str:
    """Return the last method whose rows have such names; else what stands before the row's first `_`."""
    known = [title for title, (_, pattern) in METHODS.items() if re.search(pattern, name)]
    return known[-1] if known else name.partition("_")[0]


def of_kind(kind: str, bits: Collection[int] = (8,)) -> str:
    """Return the method of a quantizer; another quantizer than ours is a method of its own.

    Args:
        bits: those of its weights and activations.
    """
    if kind == "affine":
        return "INT8" if set(bits) == {8} else "affine"
    return _OF_KIND.get(kind, kind)


def of_checkpoint(checkpoint: Checkpoint) -> str:
    """Return the last quantizer's method; without one "pruned" or "float"."""
    for stage in reversed(checkpoint.history):
        if isinstance(stage, (Quantize, Calibrate)):
            spec = QuantSpec.from_dict(dict(stage.spec))
            parts = [part for part in (spec.weight, spec.activation) if part.kind != "float"]
            return of_kind(parts[0].kind, [part.bits for part in parts]) if parts else "float"
    return "pruned" if prunings(checkpoint.history) else "float"


def in_order(found: Iterable[str]) -> list[str]:
    """Return each method once: those of METHODS first, in their order."""
    there = dict.fromkeys(found)
    return [title for title in METHODS if title in there] + [title for title in there if title not in METHODS]


def colours(found: Iterable[str]) -> dict[str, str]:
    """Return the colour of each method; a method of METHODS has the same one in every picture."""
    known = {title: colour for title, (colour, _) in METHODS.items()}
    return known | {title: OTHERS[number % len(OTHERS)] for number, title in enumerate(_others(found))}


def markers(found: Iterable[str], shapes: Sequence[str]) -> dict[str, str]:
    """Return the marker of each method: the first of some shapes, and the next one where colours repeat."""
    own = {title: shapes[number // len(OTHERS) % len(shapes)] for number, title in enumerate(_others(found))}
    return dict.fromkeys(METHODS, shapes[0]) | own


def _others(found: Iterable[str]) -> list[str]:
    return [title for title in in_order(found) if title not in METHODS]
