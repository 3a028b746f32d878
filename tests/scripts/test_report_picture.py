"""The picture of accuracy against size: what can be read on it."""

from __future__ import annotations

import re
from dataclasses import replace

import pytest

from scripts import table
from scripts.table import ResultRow

ROW = ResultRow("a", "digits", "1", 90.0, 222_486_528, 969_822, 8_000_000, "", "test", "f")


def test_points_that_lie_together_share_a_label_and_no_label_hides_another(monkeypatch: pytest.MonkeyPatch) -> None:
    pyplot = pytest.importorskip("matplotlib.pyplot")
    monkeypatch.setattr(pyplot, "close", lambda figure: None)
    rows = [replace(ROW, type=f"$row {n}", size_bits=10**4 * 2 ** (n % 12), accuracy=90 + n % 4) for n in range(30)]
    assert table.draw([*rows, ROW, ROW]) is not None
    figure = pyplot.gcf()
    monkeypatch.undo()
    (axis,) = figure.axes
    labels = [text for text in axis.texts if text.get_text()]
    assert sorted(int(n) for text in labels for n in re.findall(r"\d+", text.get_text())) == list(range(1, 33))
    assert "31, 32" in [text.get_text() for text in labels]
    boxes = [text.get_window_extent() for text in labels]
    assert not any(a.overlaps(b) for n, a in enumerate(boxes) for b in boxes[:n])
    looks = {(line.get_marker(), line.get_color()) for line in axis.lines}
    assert len(looks) == 32
    assert axis.bbox.height > 0.5 * 5.2 * figure.dpi  # the legend does not eat the plot
    assert axis.bbox.width > 0.8 * figure.bbox.width
    shown = [tick.get_text() for tick in axis.get_xticklabels()]
    assert {"0.002", "0.01", "0.5", "1"} <= set(shown)
    pyplot.close(figure)
