"""The three pictures of the ladder; needs matplotlib. Each function takes rows as JSON holds them and gives a figure, or None."""

from __future__ import annotations

from typing import Any

from matplotlib import pyplot
from matplotlib.figure import Figure
from matplotlib.ticker import FuncFormatter, LogLocator, MaxNLocator, NullFormatter

from engine.tasks.score import ACCURACY as SCORE

Rows = list[dict[str, Any]]


FAMILIES = {
    "float": ("nin", "nin_3x3", "nin_gc", "sparse", "gc_sparse", "depthwise"),
    "pruned": ("prune50", "gc_prune40"),
    "DoReFa": ("w",),
    "INT8": ("int8", "ptq"),
    "ternary and binary": ("wb", "wt", "prune50_wtab", "gc_prune40_wtab"),
}


def family(name: str) -> str:
    """The family of a row: the one that its name agrees with longest; else what stands before its first `_`."""
    known = [(len(start), title) for title, starts in FAMILIES.items() for start in starts if name.startswith(start)]
    return max(known)[1] if known else name.partition("_")[0]


def _titles(rows: Rows) -> list[str]:
    """The families of rows, in order: those of FAMILIES first."""
    found = dict.fromkeys(family(row["row"]) for row in rows)
    return [title for title in FAMILIES if title in found] + [title for title in found if title not in FAMILIES]


def curves(rows: Rows) -> Figure | None:
    """Accuracy after each epoch of a row's last stage, a panel a family, all with the same axes.

    A few poor first epochs would press all else against the upper edge: the lowest of twenty points may lie below it.
    """
    if not rows:
        return None
    lines = [[(e["epoch"], e[_evaluated(row)]) for e in row["curve"]] for row in rows]
    values = sorted(accuracy for line in lines for _, accuracy in line)
    low = values[len(values) // 20]
    titles = _titles(rows)
    figure, axes = pyplot.subplots(
        len(titles), 1, figsize=(10, 2.8 * len(titles)), layout="constrained", squeeze=False, sharex=True, sharey=True
    )
    for axis, title in zip(axes[:, 0], titles, strict=True):
        for row, line in zip(rows, lines, strict=True):
            if family(row["row"]) == title:
                axis.plot(*zip(*line, strict=True), marker=".", label=row["label"])
        axis.set(title=title, ylabel=SCORE.label)
        axis.grid(alpha=0.3)
        axis.legend(fontsize=7, loc="center left", bbox_to_anchor=(1, 0.5), frameon=False)
        axis.tick_params(labelbottom=True)
    axes[-1, 0].set_xlabel("epoch of the last stage")
    axes[-1, 0].xaxis.set_major_locator(MaxNLocator(integer=True))
    axes[-1, 0].set_ylim(low - (margin := max(values[-1] - low, 1) / 20), values[-1] + margin)
    cut = sum(value < low - margin for value in values)
    figure.suptitle(rows[0]["dataset"] + (f" ({cut} of {len(values)} points lie below the axes)" if cut else ""))
    return figure


def _evaluated(row: dict[str, Any]) -> str:
    """Which score of an epoch is not that of training: test_accuracy, or val_accuracy."""
    return next(key for key in row["curve"][0] if key.endswith(f"_{SCORE.name}") and not key.startswith("train"))


def size(rows: Rows) -> Figure | None:
    """Accuracy against counted bytes, a number a row, a colour a family."""
    if not rows:
        return None
    figure, axis = pyplot.subplots(figsize=(12, 7.5), layout="constrained")
    colours = {title: f"C{number}" for number, title in enumerate(dict.fromkeys((*FAMILIES, *_titles(rows))))}
    places = [(row["bytes_counted"] / 1e6, row["accuracy"]) for row in rows]
    for number, (row, place) in enumerate(zip(rows, places, strict=True), 1):
        axis.plot(*place, "o", color=colours[family(row["row"])], label=f"{number}  {row['label']}")
    axis.set_xscale("log")
    axis.xaxis.set_major_locator(LogLocator(subs=(1, 2, 5)))
    axis.xaxis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:g}"))
    axis.xaxis.set_minor_formatter(NullFormatter())
    axis.set(xlabel="size in MB (stored bits / 8e6, log scale)", ylabel=SCORE.label,
             title=f"{SCORE.name} against size: {rows[0]['dataset']}")  # fmt: skip
    axis.grid(alpha=0.3, which="both")
    axis.legend(loc="center left", bbox_to_anchor=(1, 0.5), fontsize=8, frameon=False)
    figure.draw_without_rendering()  # now it is known where points come to lie
    for group in clusters([tuple(place) for place in axis.transData.transform(places)]):
        left, right = min(places[n][0] for n in group), max(places[n][0] for n in group)
        top = max(places[n][1] for n in group)
        axis.annotate(spans([n + 1 for n in group]), ((left * right) ** 0.5, top), (0, 5),
                      textcoords="offset points", fontsize=8, ha="center")  # fmt: skip
    return figure


def clusters(points: list[tuple[float, float]]) -> list[list[int]]:
    """The numbers of the points (in pixels) that lie too close together for a label each."""
    groups: list[list[int]] = []
    for number, (x, y) in enumerate(points):
        near = [g for g in groups if any(abs(x - points[n][0]) < 16 and abs(y - points[n][1]) < 8 for n in g)]
        groups = [g for g in groups if g not in near]
        groups.append(sorted([*(n for g in near for n in g), number]))
    return groups


def spans(numbers: list[int]) -> str:
    """Ascending numbers in few words: `7, 19-24, 27`."""
    parts: list[list[int]] = []
    for number in numbers:
        if parts and number == parts[-1][-1] + 1:
            parts[-1].append(number)
        else:
            parts.append([number])
    return ", ".join(f"{p[0]}-{p[-1]}" if len(p) > 2 else ", ".join(map(str, p)) for p in parts)


def kept(rows: Rows) -> Figure | None:
    """Channels before and after pruning, a panel a network."""
    if not rows:
        return None
    figure, axes = pyplot.subplots(len(rows), 1, figsize=(8, 2.4 * len(rows)), layout="constrained", squeeze=False)
    for axis, row in zip(axes[:, 0], rows, strict=True):
        places = range(1, len(row["cfg"]) + 1)
        axis.bar(places, row["cfg_before"], color="0.85", label="before")
        bars = axis.bar(places, row["cfg"], color="C0", label="kept")
        axis.bar_label(bars, fontsize=8)
        axis.set(title=row["label"], ylabel="channels", xticks=list(places))
        axis.legend(fontsize=8, loc="center left", bbox_to_anchor=(1, 0.5), frameon=False)
    axes[-1, 0].set_xlabel("layer")
    return figure
