"""The three pictures of the ladder; needs matplotlib. Each function takes rows as JSON holds them and gives a figure, or None."""

from __future__ import annotations

from typing import Any

from matplotlib import pyplot
from matplotlib.figure import Figure

Rows = list[dict[str, Any]]

FAMILIES = {
    "float": ("nin", "nin_3x3", "nin_gc", "sparse", "gc_sparse", "depthwise"),
    "pruned": ("prune50", "gc_prune40"),
    "DoReFa": ("w",),
    "INT8": ("int8", "ptq"),
    "ternary and binary": ("wb", "wt", "prune50_wtab", "gc_prune40_wtab"),
}


def family(name: str) -> str:
    """The family of a row: the one that its name agrees with longest."""
    return max(
        ((len(start), title) for title, starts in FAMILIES.items() for start in starts if name.startswith(start))
    )[1]


def curves(rows: Rows) -> Figure | None:
    """Accuracy after each epoch of a row's last stage, a panel a family."""
    if not rows:
        return None
    titles = [title for title in FAMILIES if any(family(r["row"]) == title for r in rows)]
    figure, axes = pyplot.subplots(len(titles), 1, figsize=(9, 2.8 * len(titles)), layout="constrained", squeeze=False)
    for axis, title in zip(axes[:, 0], titles, strict=True):
        for row in (r for r in rows if family(r["row"]) == title):
            key = next(k for k in row["curve"][0] if k.endswith("_accuracy") and not k.startswith("train"))
            axis.plot(
                [e["epoch"] for e in row["curve"]], [e[key] for e in row["curve"]], marker=".", label=row["label"]
            )
        axis.set(title=title, xlabel="epoch of the last stage", ylabel="accuracy in %")
        axis.grid(alpha=0.3)
        axis.legend(fontsize=7, loc="center left", bbox_to_anchor=(1, 0.5), frameon=False)
    figure.suptitle(rows[0]["dataset"])
    return figure


def size(rows: Rows) -> Figure | None:
    """Accuracy against counted bytes, a number a row, a colour a family."""
    if not rows:
        return None
    figure, axis = pyplot.subplots(figsize=(12, 7.5), layout="constrained")
    colours = {title: f"C{number}" for number, title in enumerate(FAMILIES)}
    for number, row in enumerate(rows, 1):
        place = (row["bytes_counted"] / 1e6, row["accuracy"])
        axis.plot(*place, "o", color=colours[family(row["row"])], label=f"{number}  {row['label']}")
        axis.annotate(str(number), place, (4, 4), textcoords="offset points", fontsize=8)
    axis.set_xscale("log")
    axis.set(xlabel="size in MB (stored bits / 8e6, log scale)", ylabel="accuracy in %",
             title=f"accuracy against size: {rows[0]['dataset']}")  # fmt: skip
    axis.grid(alpha=0.3, which="both")
    axis.legend(loc="center left", bbox_to_anchor=(1, 0.5), fontsize=8, frameon=False)
    return figure


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
