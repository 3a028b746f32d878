"""The chart of a race: a bar for each contender with its speed relative to the first."""

from __future__ import annotations

from collections.abc import Mapping

from engine.system import figures


def drawn(faster: Mapping[int, Mapping[str, float]], kind: str) -> bytes:
    """Return the bytes of a chart.

    Args:
        faster: speed relative to the first contender, by batch size and the contender's name.
        kind: png, pdf or svg.
    """
    names = list(next(iter(faster.values())))
    figure, axes = figures.pyplot().subplots(figsize=(8, 0.6 + 0.28 * len(names) * len(faster)), layout="constrained")
    thick = 0.8 / len(faster)
    for place, (batch, each) in enumerate(faster.items()):
        places = [number + place * thick for number in range(len(names))]
        bars = axes.barh(places, [each[name] for name in names], thick, label=f"batch {batch}")
        axes.bar_label(bars, fmt="%.1f", padding=2, fontsize=8)
    axes.set_yticks([number + thick * (len(faster) - 1) / 2 for number in range(len(names))], names)
    axes.invert_yaxis()
    axes.set_xlabel(f"times as fast as {names[0]}")
    axes.spines[["top", "right"]].set_visible(False)
    axes.legend(frameon=False)
    return figures.drawn(figure, 150, kind)
