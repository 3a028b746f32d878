"""What a network was made by, in one word for pictures: the method of a checkpoint or a row of the ladder, and its colour.

Every picture takes its colours from here. They are those of matplotlib's C0 to C9, so that needs no matplotlib.
"""

from __future__ import annotations

from collections.abc import Iterable

from engine.checkpoint.format import Checkpoint
from engine.checkpoint.history import Calibrate, Quantize, prunings
from quant.spec import QuantSpec

METHODS = {
    "float": ("nin", "nin_3x3", "nin_gc", "sparse", "gc_sparse", "depthwise"),
    "pruned": ("prune50", "gc_prune40"),
    "DoReFa": ("w",),
    "INT8": ("int8", "ptq"),
    "ternary and binary": ("wb", "wt", "prune50_wtab", "gc_prune40_wtab"),
    "LSQ": ("lsq",),
}
"""The methods, each with what the names of the ladder's rows begin with."""

_OF_KIND = {
    "dorefa": "DoReFa", "affine": "INT8", "binary": "ternary and binary", "ternary": "ternary and binary", "lsq": "LSQ",
}  # fmt: skip

COLOURS = (
    "#1f77b4", "#ff7f0e", "#2ca02c", "#d62728", "#9467bd", "#8c564b", "#e377c2", "#7f7f7f", "#bcbd22", "#17becf",
)  # fmt: skip


def of_row(name: str) -> str:
    """Return the method whose names agree longest with that of a row; else what stands before the row's first `_`."""
    known = [(len(start), title) for title, starts in METHODS.items() for start in starts if name.startswith(start)]
    return max(known)[1] if known else name.partition("_")[0]


def of_kind(kind: str) -> str:
    """Return the method of a quantizer; another quantizer than ours is a method of its own."""
    return _OF_KIND.get(kind, kind)


def of_checkpoint(checkpoint: Checkpoint) -> str:
    """Return the last quantizer's method; without one "pruned" or "float"."""
    for stage in reversed(checkpoint.history):
        if isinstance(stage, (Quantize, Calibrate)):
            spec = QuantSpec.from_dict(dict(stage.spec))
            kind = next((part.kind for part in (spec.weight, spec.activation) if part.kind != "float"), "float")
            return of_kind(kind)
    return "pruned" if prunings(checkpoint.history) else "float"


def in_order(found: Iterable[str]) -> list[str]:
    """Return each method once: those of METHODS first, in their order."""
    there = dict.fromkeys(found)
    return [title for title in METHODS if title in there] + [title for title in there if title not in METHODS]


def colours(found: Iterable[str]) -> dict[str, str]:
    """Return the colour of each method; a method of METHODS has the same one in every picture."""
    titles = dict.fromkeys((*METHODS, *in_order(found)))
    return {title: COLOURS[number % len(COLOURS)] for number, title in enumerate(titles)}
