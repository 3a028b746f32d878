"""The three plots of the ladder, made with matplotlib. Each function returns a PNG, or None without any data."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING

from engine.system import figures
from scripts import methods, plots
from scripts.ladder.result import Done
from scripts.ladder.rows import ROWS
from scripts.plots import Point
from scripts.table import ResultRow, score_of

if TYPE_CHECKING:
    from matplotlib.figure import Figure


def colour(name: str) -> str:
    """Return the colour of a row among those of its method: the same for every data set, whichever rows were run."""
    method = methods.of_row(name)
    names = [row.name for row in ROWS if methods.of_row(row.name) == method]
    return f"C{names.index(name)}" if name in names else "C0"


def curves(rows: list[Done]) -> bytes | None:
    """Plot the score after each epoch of each row's last stage, one panel a family, all with the same axes."""
    return figures.drawn(curves_figure(rows), dpi=120) if rows else None


def curves_figure(rows: list[Done]) -> Figure:
    """Draw the figure of `curves`. Its axes may cut off the lowest 5 % of the points: poor first epochs."""
    lines = [[(e["epoch"], e[_evaluated(row)]) for e in row.curve] for row in rows]
    values = sorted(accuracy for line in lines for _, accuracy in line)
    low = values[len(values) // 20]
    titles = methods.in_order(methods.of_row(row.row) for row in rows)
    pyplot = figures.pyplot()
    from matplotlib.ticker import MaxNLocator

    figure, axes = pyplot.subplots(
        len(titles), 1, figsize=(10, 2.8 * len(titles)), layout="constrained", squeeze=False, sharex=True, sharey=True
    )
    for axis, title in zip(axes[:, 0], titles, strict=True):
        for row, line in zip(rows, lines, strict=True):
            if methods.of_row(row.row) == title:
                axis.plot(*zip(*line, strict=True), marker=".", label=row.label, color=colour(row.row))
        axis.set(title=title, ylabel=rows[0].score.label)
        axis.grid(alpha=0.3)
        axis.legend(fontsize=7, loc="center left", bbox_to_anchor=(1, 0.5), frameon=False)
        axis.tick_params(labelbottom=True)
    axes[-1, 0].set_xlabel("epoch of the last stage")
    axes[-1, 0].xaxis.set_major_locator(MaxNLocator(integer=True))
    axes[-1, 0].set_ylim(low - (margin := max(values[-1] - low, 1) / 20), values[-1] + margin)
    cut = sum(value < low - margin for value in values)
    figure.suptitle(rows[0].dataset + (f" ({cut} of {len(values)} points lie below the axes)" if cut else ""))
    return figure


def _evaluated(row: Done) -> str:
    """Return the key of an epoch's evaluated score: test_accuracy, val_accuracy, test_mAP or val_mAP."""
    return next(key for key in row.curve[0] if key.endswith(f"_{row.score.name}") and not key.startswith("train"))


def size(rows: Mapping[str, ResultRow]) -> bytes | None:
    """Plot the score against size, one colour a family.

    Args:
        rows: the rows by their names in the ladder.
    """
    if not rows:
        return None
    colours = methods.colours(map(methods.of_row, rows))
    points = [
        Point(row.type, row.size_bits / 8e6, row.accuracy, "o", colours[methods.of_row(name)])
        for name, row in rows.items()
        if row.accuracy is not None
    ]
    return plots.size(points, next(iter(rows.values())).dataset, score_of(list(rows.values())))


def kept(rows: list[Done]) -> bytes | None:
    """Plot channels before and after pruning, one panel a network. Networks without a cfg are left out."""
    rows = [row for row in rows if row.cfg]
    if not rows:
        return None
    figure, axes = figures.pyplot().subplots(
        len(rows), 1, figsize=(8, 2.4 * len(rows)), layout="constrained", squeeze=False
    )
    for axis, row in zip(axes[:, 0], rows, strict=True):
        places = range(1, len(row.cfg) + 1)
        axis.bar(places, row.cfg_before or row.cfg, color="0.85", label="before")
        bars = axis.bar(places, row.cfg, color="C0", label="kept")
        axis.bar_label(bars, fontsize=8)
        axis.set(title=row.label, ylabel="channels", xticks=list(places))
        axis.legend(fontsize=8, loc="center left", bbox_to_anchor=(1, 0.5), frameon=False)
    axes[-1, 0].set_xlabel("layer")
    return figures.drawn(figure, dpi=120)
