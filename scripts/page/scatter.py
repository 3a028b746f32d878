"""Accuracy against what a network costs: a point a network in its method's colour; its name appears under the pointer."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence

from bokeh.models import ColumnDataSource, FixedTicker, HoverTool, Legend, LegendItem, NumeralTickFormatter
from bokeh.plotting import figure

from scripts import methods
from scripts.page.entry import MARKERS, Entry, score_label
from scripts.table import score_of

WIDE = 4
"""How many times the largest value may exceed the smallest on a linear axis."""
TICKS_AT_1_2_5 = 1e4
"""On a wider axis ticks at 1 alone have room."""
Cost = Callable[[Entry], float | None]


def by_size(entries: Sequence[Entry]) -> figure:
    """Return the plot against stored bytes."""
    return _scatter(entries, "size", lambda entry: entry.size, "size in bytes (stored bits / 8)", "0,0")


def by_time(entries: Sequence[Entry]) -> figure | None:
    """Return the plot against measured milliseconds; None where none were measured."""
    if not any(entry.row.milliseconds is not None and entry.row.accuracy is not None for entry in entries):
        return None
    return _scatter(entries, "time", lambda entry: entry.row.milliseconds, "time for one picture in ms", "0,0.[000]")


def _scatter(entries: Sequence[Entry], name: str, cost: Cost, label: str, written: str) -> figure:
    shown = [entry for entry in entries if entry.row.accuracy is not None and cost(entry) is not None]
    costs = [float(cost(entry) or 0) for entry in shown]
    log = max(costs) > WIDE * min(costs) > 0
    plot = figure(
        name=name,
        width=1240,
        height=440,
        x_axis_type="log" if log else "linear",
        x_axis_label=label + (", log scale" if log else ""),
        y_axis_label=score_label(entries),
        tools="pan,wheel_zoom,box_zoom,reset,save",
        active_scroll=None,
    )
    plot.toolbar.logo = None
    plot.xaxis.formatter = NumeralTickFormatter(format=written)
    if log:
        plot.xaxis.ticker = FixedTicker(ticks=_ticks(min(costs), max(costs)))
    else:
        plot.x_range.default_span = max(costs) or 1  # of an axis with one value
    colours = methods.colours(entry.method for entry in entries)
    markers = methods.markers((entry.method for entry in entries), MARKERS)
    items = []
    for method in methods.in_order(entry.method for entry in shown):
        group = [entry for entry in shown if entry.method == method]
        look = {"color": colours[method], "line_color": "white", "alpha": 0.85}
        source = ColumnDataSource(_told(group, entries, cost))
        drawn = plot.scatter("x", "y", source=source, size=11, marker=markers[method], **look)
        items.append(LegendItem(label={"value": method}, renderers=[drawn]))
        if entries[0] in group:
            star = plot.scatter([cost(entries[0])], [entries[0].row.accuracy], marker="star", size=20, **look)
            drawn.js_link("visible", star, "visible")
    plot.add_layout(Legend(items=items, click_policy="hide", title="click to hide"), "right")
    points = [drawn for item in items for drawn in item.renderers]
    plot.add_tools(HoverTool(renderers=points, tooltips=_tooltips(entries)))
    return plot


def _ticks(low: float, high: float) -> list[float]:
    """Return ticks for a log axis: at 1, 2, 5 of each power of ten, or at 1 alone where there are too many."""
    steps = (1, 2, 5) if high < TICKS_AT_1_2_5 * low else (1,)
    powers = range(math.floor(math.log10(low)) - 1, math.ceil(math.log10(high)) + 1)
    return [step * 10.0**power for power in powers for step in steps]


def _told(group: Sequence[Entry], entries: Sequence[Entry], cost: Cost) -> dict[str, list]:
    """Return points, and what is said of each."""
    return {
        "x": [cost(entry) for entry in group],
        "y": [entry.row.accuracy for entry in group],
        "name": [f"{entries.index(entry) + 1}. {entry.name}" for entry in group],
        "type": [entry.row.type for entry in group],
        "bytes": [entry.size for entry in group],
        "packed": ["not measured" if (n := entry.row.packed_bytes) is None else f"{n:,} bytes" for entry in group],
        "time": ["not measured" if (ms := entry.row.milliseconds) is None else f"{ms:.2f} ms" for entry in group],
    }


def _tooltips(entries: Sequence[Entry]) -> list[tuple[str, str]]:
    score = score_of([entry.row for entry in entries])
    measured = any(entry.row.milliseconds is not None for entry in entries)
    return [
        ("file", "@name"),
        ("type", "@type"),
        (score.name, f"@y{{0.00}} {score.unit}"),
        ("size", "@bytes{0,0} bytes"),
        *([("packed", "@packed"), ("time", "@time")] if measured else []),
    ]
