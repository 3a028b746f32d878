"""The ladder's output: its table and its plots."""

from __future__ import annotations

import sys
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from scripts.ladder import rows, table
from scripts.ladder.result import Diverged, Done, Stale


def done(row: str, seed: int, accuracy: float, **more: Any) -> Done:
    plain = Done(
        row=row, label=row, seed=seed, accuracy=accuracy, epochs="2", macs=10, params=5, size_bits=4_000_000,
        bytes_counted=500_000, pictures=9, judged_on="test", dataset="x", machine="m", cfg=[1], cfg_before=None,
        curve=[],
    )  # fmt: skip
    return replace(plain, **more)


def test_rows_with_several_seeds_show_their_spread() -> None:
    found: table.Results = {
        "nin": [done("nin", 1, 90.0, size_bits=16_000_000)],
        "wbab": [
            done("wbab", 1, 80.0),
            done("wbab", 2, 83.0, macs=16),
            Diverged(row="wbab", seed=3, diverged_in="wbab"),
            Stale(row="wbab", seed=4),
        ],
    }
    lines = table.markdown(found, list(rows.choose(["nin", "wbab", "wtab"]))).splitlines()
    assert lines[2] == "| NIN, 5x5 second stage | 2 | 1 | 90.00 % | 10 | 5 | 2.0000 | - | - |"
    assert (
        lines[3]
        == "| W1A1 | 2 | 2 | 81.50 % +- 2.12; diverged (seed 3, in wbab); to be run again (seed 4) | 13 | 5 | 0.5000 | 75.00 % | +8.50 |"
    )
    plain = table.plain(found, list(rows.choose(["nin", "wbab", "wtab"]))).splitlines()
    assert len({len(line) for line in plain[:3]}) == 1, "aligned"
    assert lines[-1].endswith(" Not run: WtA1.")
    every = rows.choose(["all"])
    assert table.markdown(found, every).endswith(f" Not run: {len(every) - 2} of {len(every)} rows.\n")
    assert "Not run" not in table.markdown(found, rows.choose(["nin", "wbab"]))


def test_the_note_speaks_of_what_the_table_shows() -> None:
    def note(**found: list[Any]) -> str:
        return table.markdown({**found}, list(rows.choose(["nin", "wbab"]))).splitlines()[-1]

    spread, base = "+- the standard deviation over n seeds", "against NIN with its 5x5 second stage"
    assert base in note(nin=[done("nin", 1, 90.0)])
    assert spread not in note(nin=[done("nin", 1, 90.0)], wbab=[done("wbab", 1, 80.0), Stale(row="wbab", seed=2)])
    assert base not in note(wbab=[done("wbab", 1, 80.0), done("wbab", 2, 80.0)])
    assert spread in note(wbab=[done("wbab", 1, 80.0), done("wbab", 2, 80.0)])


def test_pictures_need_matplotlib_and_say_so(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setitem(sys.modules, "matplotlib", None)
    assert table.draw({}, []) == {}
    assert capsys.readouterr().err == "notice: no plots without matplotlib: pip install matplotlib bokeh\n"


def test_the_picture_of_sizes_shows_means_and_a_colour_a_family(monkeypatch: pytest.MonkeyPatch) -> None:
    pytest.importorskip("matplotlib")
    from scripts.ladder import plots

    known = table.mean([done("wbab", 1, 80.0), done("wbab", 2, 83.0)])
    assert known
    drawn: list[Any] = []
    monkeypatch.setattr("scripts.plots.size", lambda *said: drawn.append(said))
    plots.size({"nin": replace(known, type="whole"), "w4a4": known, "wbab": known})
    ((points, title, score),) = drawn
    assert [(p.name, p.size, p.accuracy) for p in points] == [(n, 0.5, 81.5) for n in ("whole", "wbab", "wbab")]
    assert len({p.colour for p in points}) == 3
    assert (title, score.name) == ("x", "accuracy")


def test_a_row_has_one_colour_whichever_rows_were_run() -> None:
    pytest.importorskip("matplotlib")
    from scripts.ladder import plots

    def drawn(*names: str) -> dict[str, str]:
        curve = [{"epoch": 1, "test_accuracy": 80.0}]
        figure = plots.curves_figure([done(name, 1, 80.0, curve=curve) for name in names])
        return {line.get_label(): line.get_color() for axis in figure.axes for line in axis.lines}

    both, one = drawn("w8a8", "w4a4"), drawn("w4a4")
    assert len(set(both.values())) == 2
    assert one.items() <= both.items()


def test_headline_rows_have_a_place_and_few_columns(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    page = tmp_path / "page.md"
    page.write_text("<!-- headline:x -->\nold\n<!-- /headline:x -->\n<!-- results:x -->\nold\n<!-- /results:x -->\n")
    found: table.Results = {name: [done(name, 1, 80.0)] for name in ("nin", "nin_3x3", "wbab")}
    monkeypatch.setattr(table, "read", lambda _: found)
    monkeypatch.setattr(table, "draw", lambda *_: {})
    table.write(tmp_path / "x", list(rows.ROWS), [page])
    short, _, whole = page.read_text().partition("<!-- /headline:x -->\n")
    assert short.splitlines()[1].startswith("| network | epochs | accuracy | loss, points | size, MB")
    assert [line.split(" | ")[0] for line in short.splitlines()[3:5]] == ["| NIN, 5x5 second stage", "| W1A1"]
    assert "| NIN, 3x3 second stage |" in whole
    assert "old" not in page.read_text()


def test_curves_count_whole_epochs_and_share_their_axes() -> None:
    pytest.importorskip("matplotlib")
    from scripts.ladder import plots

    def row(name: str, accuracies: list[float]) -> Done:
        curve = [{"epoch": n, "test_accuracy": value} for n, value in enumerate(accuracies, 1)]
        return done(name, 1, accuracies[-1], curve=curve)

    figure = plots.curves_figure([row("nin", [50.0, 90.0]), row("wbab", [80.0, 85.0, 88.0])])
    figure.draw_without_rendering()
    assert len({(axis.get_xlim(), axis.get_ylim()) for axis in figure.axes}) == 1
    assert all(tick == int(tick) for axis in figure.axes for tick in axis.get_xticks())
