"""Kept channels and bits, a line a layer and a column a file: numbers in cells whose colour shows how much is left."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Callable, Sequence
from typing import Any

from bokeh.models import BasicTicker, ColorBar, ColumnDataSource, FixedTicker, HoverTool, LinearColorMapper
from bokeh.plotting import figure

from scripts.page.entry import Entry, Layer

BLUES = ("#fff3e0", "#f1f1ee", "#e3edf5", "#d0e2f1", "#bad6eb", "#a1cbe2", "#85bcdc")
"""From little to all; black text can be read on each."""
LOW, HIGH = 34, 92
"""Pixels of a column: room for four digits, and no more than a number needs."""
LINE = 21
"""Pixels of a layer."""
ASLANT = 4.6
"""Pixels that a letter of a slanted name reaches to the right."""
Text = Callable[[Layer], str]
Colour = Callable[[Layer], float]


def by_network(entries: Sequence[Entry]) -> dict[str, list[Entry]]:
    """Return the files that have layers, by a heading. Files of one heading have one network and the same layers.

    A result of the ladder numbers the widths of its network instead of naming layers.
    """
    found: dict[tuple[str, frozenset[str]], list[Entry]] = {}
    for entry in entries:
        if entry.layers:
            found.setdefault((entry.network, frozenset(layer.name for layer in entry.layers)), []).append(entry)
    times = Counter(network for network, _ in found)
    return {
        f"{network} ({', '.join(entry.name for entry in those)})" if times[network] > 1 else network: those
        for (network, _), those in found.items()
    }


def kept(entries: Sequence[Entry]) -> figure:
    """Return how many channels each layer of some files has kept; the colour is their share."""
    mapper = LinearColorMapper(palette=BLUES, low=0, high=100)
    plot = _heat(entries, lambda layer: "?" if layer.kept is None else str(layer.kept), _share, mapper)
    plot.add_layout(ColorBar(color_mapper=mapper, ticker=BasicTicker(desired_num_ticks=5), **_bar("kept, %")), "right")
    return plot


def bits(entries: Sequence[Entry]) -> figure | None:
    """Return the bits of each layer's weights and inputs; None where no file tells them. The colour is that of the weights."""
    told = [entry for entry in entries if any(layer.weight_bits for layer in entry.layers)]
    if not told:
        return None
    mapper = LinearColorMapper(palette=BLUES, low=0, high=5)
    plot = _heat(told, _bits, lambda layer: math.log2(layer.weight_bits or 32), mapper)
    ticks = {0: "1", 1: "2", 2: "4", 3: "8", 4: "16", 5: "32"}
    bar = ColorBar(
        color_mapper=mapper,
        ticker=FixedTicker(ticks=list(ticks)),
        major_label_overrides=ticks,
        **_bar("weights, bits"),
    )
    plot.add_layout(bar, "right")
    return plot


def _bar(title: str) -> dict[str, Any]:
    return {"title": title, "title_standoff": 8, "width": 12, "bar_line_color": "#999999", "margin": 12}


def _share(layer: Layer) -> float:
    return math.nan if layer.kept is None or not layer.before else 100 * layer.kept / layer.before


def _bits(layer: Layer) -> str:
    return f"{layer.weight_bits}/{layer.input_bits}"


def _heat(entries: Sequence[Entry], text: Text, colour: Colour, mapper: LinearColorMapper) -> figure:
    """Draw a cell for each layer of each file; a layer that a file lacks has none."""
    names = list(dict.fromkeys(layer.name for entry in entries for layer in entry.layers))
    each = max(LOW, min(HIGH, 900 // len(entries)))
    files = [entry.name for entry in entries]
    plot = figure(
        x_range=files,
        y_range=names[::-1],
        x_axis_location="above",
        frame_width=each * len(files),
        frame_height=LINE * len(names),
        tools="save",
        toolbar_location=None,
        y_axis_label="layer",
        min_border_right=round(ASLANT * max(map(len, files))),
    )
    cells = [(entry, layer) for entry in entries for layer in entry.layers]
    source = ColumnDataSource({
        "file": [entry.name for entry, _ in cells],
        "layer": [layer.name for _, layer in cells],
        "text": [text(layer) for _, layer in cells],
        "colour": [colour(layer) for _, layer in cells],
        "channels": [_channels(layer) for _, layer in cells],
        "bits": [_bits_in_words(layer) for _, layer in cells],
        "macs": ["not known" if layer.macs is None else f"{layer.macs:,}" for _, layer in cells],
    })  # fmt: skip
    drawn = plot.rect(
        "file", "layer", 1, 1, source=source, line_color="white", line_width=1,
        fill_color={"field": "colour", "transform": mapper},
    )  # fmt: skip
    plot.text(
        "file", "layer", text="text", source=source,
        text_align="center", text_baseline="middle", text_font_size="11px", text_color="black",
    )  # fmt: skip
    plot.grid.visible = False
    plot.outline_line_color = None
    plot.xaxis.major_label_orientation = math.pi / 4
    plot.axis.major_tick_line_color = plot.axis.axis_line_color = None
    words = [("file", "@file"), ("layer", "@layer"), ("channels", "@channels"), ("bits", "@bits"), ("MACs", "@macs")]
    plot.add_tools(HoverTool(renderers=[drawn], tooltips=words))
    return plot


def _channels(layer: Layer) -> str:
    if layer.kept is None or not layer.before:
        return f"{'?' if layer.kept is None else layer.kept}; before pruning: not known"
    return f"{layer.kept} of {layer.before} kept ({_share(layer):.0f} %)"


def _bits_in_words(layer: Layer) -> str:
    if layer.weight_bits is None:
        return "not in a result of the ladder"
    return f"weights {layer.weight_bits}, input {layer.input_bits}"
