"""The plot of accuracy against size: its labels and markers."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import replace
from typing import Any

import pytest

from scripts import plots, table
from scripts.table import ResultRow

ROW = ResultRow("a", "digits", "1", 90.0, 222_486_528, 969_822, 8_000_000, "", "test", "f")


@pytest.fixture
def draw(monkeypatch: pytest.MonkeyPatch) -> Iterator[Callable[[list[ResultRow]], Any]]:
    """Return a function that draws rows and returns the axes with labels and markers."""
    pyplot = pytest.importorskip("matplotlib.pyplot")
    kept = pyplot.close
    monkeypatch.setattr(pyplot, "close", lambda figure: None)

    def drawn(rows: list[ResultRow]) -> Any:
        assert table.draw(rows) is not None
        (axis,) = pyplot.gcf().axes
        return axis

    yield drawn
    kept("all")


def labels(axis: Any) -> list[str]:
    """Return the labels of the points after checking that no label covers another or the middle of a point."""
    boxes = [text.get_window_extent() for text in axis.texts]
    assert not any(a.overlaps(b) for n, a in enumerate(boxes) for b in boxes[:n])
    points = [axis.transData.transform((line.get_xdata()[0], line.get_ydata()[0])) for line in axis.lines]
    assert not any(box.contains(*point) for box in boxes for point in points)
    return [text.get_text() for text in axis.texts]


def numbers(said: list[str]) -> list[int]:
    """Return all numbers of labels such as "1, 4-6"."""
    parts = [part.split("-") for text in said for part in text.split(", ")]
    return sorted(n for first, *last in parts for n in range(int(first), int(last[0] if last else first) + 1))


def test_points_that_lie_together_share_a_label_and_no_label_hides_another(draw: Callable) -> None:
    rows = [replace(ROW, type=f"$row {n}", size_bits=10**4 * 2 ** (n % 12), accuracy=90 + n % 4) for n in range(30)]
    axis = draw([*rows, ROW, ROW])
    said = labels(axis)
    assert numbers(said) == list(range(1, 33))
    assert "31, 32" in said
    looks = {(line.get_marker(), line.get_color()) for line in axis.lines}
    assert len(looks) == 32
    assert axis.bbox.height > 0.5 * 5.2 * axis.figure.dpi  # the legend leaves room for the plot
    assert axis.bbox.width > 0.8 * axis.figure.bbox.width
    shown = [tick.get_text() for tick in axis.get_xticklabels()]
    assert {"0.002", "0.01", "0.5", "1"} <= set(shown)


def test_a_crowd_shares_labels_and_a_point_apart_keeps_its_own(draw: Callable) -> None:
    crowd = [replace(ROW, size_bits=8_000_000 + 20_000 * n, accuracy=90 + n % 7 / 10) for n in range(60)]
    said = labels(draw([*crowd, replace(ROW, size_bits=80_000_000)]))
    assert numbers(said) == list(range(1, 62))
    assert "61" in said
    assert len(said) < 61


def test_one_network_is_a_picture_too(draw: Callable) -> None:
    assert labels(draw([ROW])) == ["1"]


def test_numbers_are_said_in_few_words() -> None:
    assert plots.spans([7, 15, 16, 20, 21, 22]) == "7, 15, 16, 20-22"
