"""Learning curves: score and loss after each epoch of the last stage, a line a file, its name under the pointer."""

from __future__ import annotations

from collections.abc import Sequence

from bokeh.models import ColumnDataSource, HoverTool, Legend, LegendItem
from bokeh.plotting import figure

from scripts import methods
from scripts.page.entry import Entry, score_label

DASHES = ("solid", "dashed", "dotted", "dotdash", "dashdot")
"""Tell files of one method apart."""
PARTS = ("test", "val")


def scores(entries: Sequence[Entry]) -> figure | None:
    """Return the score on the pictures that judge; None where no file has a curve."""
    keys = [f"{part}_{name}" for part in PARTS for name in ("accuracy", "mAP")]
    return _curves(entries, "curves", keys, score_label(entries))


def losses(entries: Sequence[Entry]) -> figure | None:
    """Return the training loss; None where no file has a curve."""
    return _curves(entries, "losses", ["train_loss"], "training loss (no unit)")


def _curves(entries: Sequence[Entry], name: str, keys: Sequence[str], label: str) -> figure | None:
    lines = [(entry, line) for entry in entries if (line := _line(entry, keys))]
    if not lines:
        return None
    colours, met = methods.colours(entry.method for entry in entries), dict[str, int]()
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
            "x": [x for x, _ in line], "y": [y for _, y in line], "name": [entry.name] * len(line),
        })  # fmt: skip
        look = {"color": colours[entry.method], "alpha": 0.85}
        drawn = plot.line("x", "y", source=source, line_width=2, line_dash=DASHES[number % len(DASHES)], **look)
        dots = plot.scatter("x", "y", source=source, size=5, **look)
        points.append(dots)
        items.append(LegendItem(label={"value": entry.name}, renderers=[drawn, dots]))
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


def _line(entry: Entry, keys: Sequence[str]) -> list[tuple[float, float]]:
    """Return the epochs that were judged and what was found; not every epoch need be."""
    key = next((key for key in keys if any(key in epoch for epoch in entry.curve)), "")
    return [(epoch["epoch"], epoch[key]) for epoch in entry.curve if key in epoch and "epoch" in epoch]
