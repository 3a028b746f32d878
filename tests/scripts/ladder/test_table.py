"""The ladder as people look at it: its table, and what its pictures say."""

from __future__ import annotations

import sys

import pytest

from scripts.ladder import rows, table


def test_rows_with_several_seeds_show_their_spread() -> None:
    def result(row: str, seed: int, accuracy: float, macs: int = 10) -> dict[str, object]:
        return {
            "row": row, "seed": seed, "status": "done", "accuracy": accuracy, "epochs": "2", "macs": macs, "params": 5,
            "size_bits": 16_000_000 if row == "nin" else 4_000_000, "pictures": 9, "judged_on": "test", "dataset": "x", "machine": "m",
        }  # fmt: skip

    found = {
        "nin": [result("nin", 1, 90.0)],
        "wbab": [result("wbab", 1, 80.0), result("wbab", 2, 83.0, 16), {"row": "wbab", "seed": 3, "status": "diverged", "diverged_in": "wbab"},
                 {"row": "wbab", "seed": 4, "status": "stale"}],
    }  # fmt: skip
    lines = table.markdown(found, list(rows.choose(["nin", "wbab", "wtab"]))).splitlines()
    assert lines[2] == "| NIN, 5x5 second stage | 2 | 1 | 90.00 % | 10 | 5 | 2.0000 | - | - |"
    assert (
        lines[3]
        == "| W1A1 | 2 | 2 | 81.50 % +- 2.12; diverged (seed 3, in wbab); to be run again (seed 4) | 13 | 5 | 0.5000 | 75.00 % | +8.50 |"
    )
    plain = table.plain(found, list(rows.choose(["nin", "wbab", "wtab"]))).splitlines()
    assert len({len(line) for line in plain[:4]}) == 1, "aligned"
    assert lines[4] == "| WtA1 |  |  | not run |  |  |  |  |  |"


def test_pictures_need_matplotlib_and_say_so(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setitem(sys.modules, "matplotlib", None)
    assert table.pictures({}) == {}
    assert capsys.readouterr().err == "notice: no pictures without matplotlib: pip install '.[report]'\n"


def test_points_that_lie_together_share_a_label() -> None:
    pytest.importorskip("matplotlib")
    from scripts.ladder import pictures

    assert pictures.spans([7, 15, 16, 20, 21, 22]) == "7, 15, 16, 20-22"
    assert pictures.clusters([(0, 0), (100, 0), (10, 2), (20, 0), (0, 50)]) == [[1], [0, 2, 3], [4]]


def test_curves_count_whole_epochs_and_share_their_axes() -> None:
    pytest.importorskip("matplotlib")
    from scripts.ladder import pictures

    def row(name: str, accuracies: list[float]) -> dict[str, object]:
        curve = [{"epoch": n, "test_accuracy": value} for n, value in enumerate(accuracies, 1)]
        return {"row": name, "label": name, "dataset": "x", "curve": curve}

    figure = pictures.curves([row("nin", [50.0, 90.0]), row("wbab", [80.0, 85.0, 88.0])])
    assert figure
    figure.draw_without_rendering()
    assert len({(axis.get_xlim(), axis.get_ylim()) for axis in figure.axes}) == 1
    assert all(tick == int(tick) for axis in figure.axes for tick in axis.get_xticks())
