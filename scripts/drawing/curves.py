"""The picture of a quantizer: what it makes of weights and activations, and its pseudo-gradients. Needs matplotlib."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import torch

from engine.system import figures
from models.layers.quantizers import kinds
from scripts import methods
from scripts.drawing import numbers
from scripts.drawing.numbers import Curve

if TYPE_CHECKING:
    from matplotlib.figure import Figure

DPI = 110
VALUE = "quantized value"
STYLES = ("-", "--", ":", "-.")


def colour(name: str) -> str:
    """Return the colour that a quantizer's method has in every picture; a method of its own has the next one."""
    title = methods.of_kind(name)
    return methods.colours([title])[title]


def picture(name: str, bits: int) -> bytes:
    """Return the curves of one quantizer as a PNG; it has the width nearest to `bits` that there is."""
    return figures.drawn(figure(name, bits), DPI)


def figure(name: str, bits: int) -> Figure:
    """Draw two columns, weights and activations: a row for values, one for slopes, and one for each parameter it learns."""
    sides = {"weight": numbers.weights(name, bits), "activation": numbers.activations(name, bits)}
    learned = list(dict.fromkeys(key for curves in sides.values() for found in curves for key in found.by))
    rows = {VALUE: "value", "d value / d input": "slope", **{f"d value / d {key}": key for key in learned}}
    drawn, axes = figures.pyplot().subplots(
        len(rows), 2, figsize=(10, 2.9 * len(rows)), layout="constrained", squeeze=False, sharex="col"
    )
    for column, (side, curves) in zip(axes.T, sides.items(), strict=True):
        for axis, (title, what) in zip(column, rows.items(), strict=True):
            _lines(axis, curves, what, colour(name), title)
        low, high = column[0].get_ylim()
        column[0].plot(curves[0].x, curves[0].x, color="0.8", linewidth=1, zorder=0, label="unquantized")
        column[0].set_ylim(low, high)
        column[0].legend(fontsize=8, frameon=False, loc="upper left")
        column[0].set_title(f"{side}s")
        column[-1].set_xlabel(f"{side} (no unit)")
    width = min(kinds.traits(name).bits, key=lambda known: abs(known - bits))
    drawn.suptitle(f"{name}, {width} bit")
    return drawn


def _lines(axis: Any, curves: list[Curve], what: str, shade: str, title: str) -> None:
    """Draw one row of one column. Curves that are equal there are one line with both names."""
    groups: list[tuple[Any, list[str]]] = []
    for found in curves:
        y = found.by.get(what) if what not in ("value", "slope") else getattr(found, what)
        same = next((labels for known, labels in groups if y is not None and torch.equal(known, y)), None)
        if same is not None:
            same.append(found.label)
        elif y is not None:
            groups.append((y, [found.label]))
    for (y, labels), style in zip(groups, STYLES, strict=False):
        label = " = ".join(labels) if any(labels) else "quantized" if title == VALUE else None
        axis.plot(curves[0].x, y, style, color=shade, linewidth=1.6, label=label)
    axis.set_ylabel(title)
    axis.grid(alpha=0.3)
    low, high = axis.get_ylim()
    if len(groups) > 1:
        axis.set_ylim(low, high + 0.35 * (high - low))  # room for the legend
        axis.legend(fontsize=8, frameon=False, loc="upper left", ncols=len(groups))
    elif not groups:
        axis.text(0.5, 0.5, "learns none", transform=axis.transAxes, ha="center", color="0.5")
