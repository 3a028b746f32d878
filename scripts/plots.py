"""The plot of accuracy against size: a numbered point for each network, and a legend. Needs matplotlib."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from engine.system import figures
from engine.tasks.score import ACCURACY, Score

DPI = 130  # for placing labels and for saving: text does not scale exactly
LEGEND = 120  # characters of a name; longer ones are cut
RADIUS = 3.5  # of a point, in typographic points
WAYS = np.array([(0, 1), (0, -1), (1, 0), (-1, 0), (1, 1), (-1, 1), (1, -1), (-1, -1)])  # from a point to its label


@dataclass(frozen=True)
class Point:
    """One network: its name, MB, accuracy in percent, and its marker and colour in matplotlib."""

    name: str
    size: float
    accuracy: float
    marker: str
    colour: str


def size(points: Sequence[Point], title: str, score: Score = ACCURACY) -> bytes | None:
    """Return the plot as a PNG; None without matplotlib.

    Args:
        title: the text behind "accuracy against size: ".
        score: the score that the points' accuracies are.
    """
    return figures.drawn(_draw(points, title, score), DPI) if figures.installed() else None


def _draw(points: Sequence[Point], title: str, score: Score) -> Any:
    names = [f"{number}  {point.name}" for number, point in enumerate(points, 1)]
    names = [name if len(name) <= LEGEND else f"{name[: LEGEND - 1]}…" for name in names]
    columns = 2 if len(names) > 3 and max(map(len, names)) <= 72 else 1
    height = 5.2 + 0.17 * math.ceil(len(names) / columns)
    figure, axis = figures.pyplot().subplots(figsize=(10, height), dpi=DPI, layout="constrained")
    for p in points:
        axis.plot(
            p.size, p.accuracy, p.marker, markersize=13 if p.marker == "*" else 2 * RADIUS, color=p.colour, alpha=0.85
        )
    _scale(axis, [point.size for point in points])
    axis.margins(0.07)
    axis.set_ylabel(score.label)
    axis.yaxis.get_major_formatter().set_useOffset(False)
    axis.set_title(f"{score.name} against size: {title}", parse_math=False)
    axis.grid(alpha=0.3)
    legend = figure.legend(
        axis.lines, names, loc="outside lower center", ncols=columns, fontsize=8, frameon=False, labelspacing=0.35
    )
    for text in legend.get_texts():
        text.set_parse_math(False)  # a name may hold a $
    figure.draw_without_rendering()  # now the places of the points are known
    _number(axis, points)
    return figure


def _scale(axis: Any, sizes: list[float]) -> None:
    """Use a log scale if sizes differ by more than a factor of 4, with ticks at 1, 2, 5 below a factor of 10,000."""
    from matplotlib import ticker

    wide = max(sizes) > 4 * min(sizes)
    if wide:
        axis.set_xscale("log")
        steps = (1, 2, 5) if max(sizes) < 1e4 * min(sizes) else (1,)
        axis.xaxis.set_major_locator(ticker.LogLocator(subs=steps, numticks=99))
        axis.xaxis.set_minor_locator(ticker.NullLocator())
    axis.xaxis.set_major_formatter(lambda size, _: f"{size:.6f}".rstrip("0").rstrip("."))
    axis.set_xlabel(f"size in MB (stored bits / 8e6{', log scale' if wide else ''})")


def _number(axis: Any, points: Sequence[Point]) -> None:
    """Number the points from 1. No label lies on another or on a point: without room, neighbours share one."""
    from matplotlib.transforms import Bbox

    radius = RADIUS * axis.figure.dpi / 72  # in pixels, as all lengths below
    places = axis.transData.transform([(point.size, point.accuracy) for point in points])
    marks = [Bbox([place - radius, place + radius]) for place in places]
    waiting = _together(places, radius)
    labels: dict[tuple[int, ...], Any] = {}
    boxes: dict[tuple[int, ...], Any] = {}
    while waiting:
        group = waiting.pop(0)
        label = _label(axis, places[list(group)], spans([n + 1 for n in group]), [*marks, *boxes.values()])
        if label:
            labels[group] = label
            boxes[group] = label.get_window_extent().padded(4, 1)  # room to the next one: 4 5 is not 45
            continue
        apart = {g: abs(places[list(g)].mean(0) - places[list(group)].mean(0)).max() for g in (*labels, *waiting)}
        nearest = min(apart, key=lambda g: apart[g])
        if nearest in labels:
            labels.pop(nearest).remove()
            del boxes[nearest]
        waiting = [tuple(sorted(group + nearest)), *(g for g in waiting if g != nearest)]


def _together(places: Any, near: float) -> list[tuple[int, ...]]:
    """Return groups of points that cover each other, by number: each is less than `near` from the first of its group."""
    groups: list[list[int]] = []
    for number, place in enumerate(places):
        group = next((g for g in groups if abs(places[g[0]] - place).max() < near), None)
        if group is None:
            groups.append([number])
        else:
            group.append(number)
    return [tuple(group) for group in groups]


def _label(axis: Any, places: Any, text: str, taken: list[Any]) -> Any | None:
    """Write beside some points, in the first of WAYS that is free; return None if no way is free.

    Above the topmost points of a plot there is always room.

    Args:
        places: the points' places, (N, 2).
        taken: boxes of markers and labels.
    """
    low, high = places.min(0), places.max(0)
    for way in WAYS:
        place = axis.transData.inverted().transform((low + high + way * (high - low)) / 2)
        across, along = ("center", "left", "right")[way[0]], ("center", "bottom", "top")[way[1]]
        label = axis.annotate(
            text, place, (RADIUS + 1.5) * way, textcoords="offset points", fontsize=8, ha=across, va=along
        )
        label.set_in_layout(False)  # in the layout, it would move the points
        room = label.get_window_extent()
        if not any(room.overlaps(box) for box in taken):
            return label
        label.remove()
    return None


def spans(numbers: list[int]) -> str:
    """Return ascending numbers as ranges: `7, 19-24, 27`."""
    parts: list[list[int]] = []
    for number in numbers:
        if parts and number == parts[-1][-1] + 1:
            parts[-1].append(number)
        else:
            parts.append([number])
    return ", ".join(f"{p[0]}-{p[-1]}" if len(p) > 2 else ", ".join(map(str, p)) for p in parts)
