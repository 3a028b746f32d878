"""Learning curves: score and loss after each epoch of the last stage, a line a file, its name under the pointer.

The name of a score's line says which pictures judge: "nin (val)".
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

from bokeh.models import ColumnDataSource, HoverTool, Legend, LegendItem
from bokeh.plotting import figure

from scripts import methods
from scripts.page.entry import MARKERS, Entry, Judged, score_label

DASHES = ("solid", "dashed", "dotted", "dotdash", "dashdot")
"""Tell files of one method apart."""
SCORES = [f"{part}_{name}" for part in ("test", "val") for name in ("accuracy", "mAP")]
"""The columns of metrics.csv that hold a score."""


def scores(entries: Sequence[Entry]) -> figure | None:
    """Return the score on the pictures that judge; None where no file has a curve."""
    several = len({score for _, _, score in judged(entries)}) > 1

    def name(entry: Entry) -> str:
        part, _, score = _key(entry, SCORES).partition("_")
        return f"{entry.name} ({part} {score})" if several else f"{entry.name} ({part})"

    return _curves(entries, "curves", SCORES, score_label(entries), name)


def losses(entries: Sequence[Entry]) -> figure | None:
    """Return the training loss; None where no file has a curve."""
    return _curves(entries, "losses", ["train_loss"], "training loss (no unit)", lambda entry: entry.name)


def judged(entries: Sequence[Entry]) -> list[Judged]:
    """Return what the curves of scores were measured on."""
    keys = ((entry.row.dataset, _key(entry, SCORES)) for entry in entries)
    return [(dataset, *key.split("_", 1)) for dataset, key in keys if key]  # type: ignore[misc]


def _curves(
    entries: Sequence[Entry], name: str, keys: Sequence[str], label: str, named: Callable[[Entry], str]
) -> figure | None:
    lines = [(entry, line) for entry in entries if (line := _line(entry, keys))]
    if not lines:
        return None
    colours, met = methods.colours(entry.method for entry in entries), dict[str, int]()
    markers = methods.markers((entry.method for entry in entries), MARKERS)
    plot = figure(
        name=name,
        width=1240,
        height=max(360, 60 + 20 * len(lines)),
        x_axis_label="epoch of the last stage",
        y_axis_label=label,
        tools="pan,wheel_zoom,box_zoom,reset,save",
        active_scroll=None,
    )
    plot.toolbar.logo = None
    items, points = [], []
    for entry, line in lines:
        number = met[entry.method] = met.get(entry.method, -1) + 1
        source = ColumnDataSource({
            "x": [x for x, _ in line], "y": [y for _, y in line], "name": [named(entry)] * len(line),
        })  # fmt: skip
        look = {"color": colours[entry.method], "alpha": 0.85}
        drawn = plot.line("x", "y", source=source, line_width=2, line_dash=DASHES[number % len(DASHES)], **look)
        dots = plot.scatter("x", "y", source=source, size=5, marker=markers[entry.method], **look)
        points.append(dots)
        items.append(LegendItem(label={"value": named(entry)}, renderers=[drawn, dots]))
    legend = Legend(
        items=items, click_policy="hide", title="click to hide", label_text_font_size="11px", glyph_width=36,
        spacing=-2,
    )  # fmt: skip
    plot.add_layout(legend, "right")
    plot.xaxis.ticker.min_interval = 1
    plot.xaxis.ticker.num_minor_ticks = 0
    plot.add_tools(
        HoverTool(renderers=points, tooltips=[("file", "@name"), ("epoch", "@x{0}"), (label, "@y{0.00[00]}")])
    )
    return plot


def _key(entry: Entry, keys: Sequence[str]) -> str:
    """Return the first of some columns that a curve has values in; empty where it has none."""
    return next((key for key in keys if any({key, "epoch"} <= set(epoch) for epoch in entry.curve)), "")


def _line(entry: Entry, keys: Sequence[str]) -> list[tuple[float, float]]:
    """Return the epochs that were judged and what was found; not every epoch need be."""
    key = _key(entry, keys)
    return [(epoch["epoch"], epoch[key]) for epoch in entry.curve if key in epoch and "epoch" in epoch]
