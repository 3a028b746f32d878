"""The web page by its commands: scripts.report --html and scripts.results --html, and what they refuse."""

from __future__ import annotations

import json
import sys
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from deploy.racing import measure
from engine.checkpoint import archive
from engine.errors import UserError
from scripts.ladder import fill, notes, result as stored, runner
from scripts.ladder.result import Diverged, Done
from scripts.page import make, results
from tests.conftest import assert_refused
from tests.tools.contents import raw
from tests.tools.page import Page

Command = Callable[..., SimpleNamespace]
FILES = ["models_save/nin_preprune.pth", "models_save/nin_prune.pth", "models_save/nin_refine.pth"]


def column(page: Page, name: str) -> list[Any]:
    """A column of the table."""
    (table,) = [each for each in page.models["DataTable"] if each.get("name") == "table"]
    entries = table["source"]["attributes"]["data"]["entries"]
    return dict(entries)[name]


def test_the_page_shows_what_the_table_shows(refined: Command, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(measure, "SECONDS", 0.02)
    done = refined("scripts.report", *FILES, "--measure", "--html", "--json")
    assert done.code == 0, done.err
    rows, path = (json.loads(done.out)[key] for key in ("rows", "html"))
    page = Page(Path(path).read_text(encoding="utf-8"))
    assert column(page, "name") == ["nin_preprune", "nin_prune", "nin_refine"]
    assert column(page, "score") == pytest.approx([row["accuracy"] for row in rows], abs=1e-4)
    assert column(page, "size") == [(row["size_bits"] + 7) // 8 for row in rows]
    assert column(page, "packed") == [row["packed_bytes"] for row in rows]
    assert column(page, "time") == [row["milliseconds"] for row in rows]
    assert "python -m prune.normal_regular --percent 0.3 --cpu" in page.text
    assert "ms is the median for one picture" in page.text
    assert "replaced runs/report.html" not in done.err
    assert "runs/report.html" in refined("scripts.report", *FILES, "--html").err.splitlines()[-1]  # replaced


def test_the_page_has_a_name_of_its_own(refined: Command) -> None:
    done = refined("scripts.report", FILES[0], "--save", "out/v1.2.md", "--html", "pages/mine.html")
    assert done.out.splitlines()[-2].endswith("pages/mine.html")
    assert Path("pages/mine.html").is_file()
    refined("scripts.report", FILES[0], "--save", "out/v1.2.md", "--html")
    assert Path("out/v1.2.html").is_file()


def test_a_checkpoint_is_not_taken_for_the_page(refined: Command) -> None:
    before = Path(FILES[0]).read_bytes()
    done = refined("scripts.report", "--html", *FILES)
    assert (done.code, done.out) == (2, "")
    assert done.err.splitlines()[-2].endswith(f"'{FILES[0]}' does not end in .html")
    assert done.err.splitlines()[-1] == "hint: name the page F.html, or write --html last"
    assert Path(FILES[0]).read_bytes() == before


def test_without_the_extra_nothing_is_read_or_written(refined: Command, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "bokeh", None)
    done = refined("scripts.report", "models_save/gone.pth", "--html")
    assert_refused(done, 2, "bokeh is not installed")
    assert done.err.splitlines()[-1] == "hint: pip install matplotlib bokeh"
    assert not Path("runs/report.md").exists()
    assert refined("scripts.report", FILES[0]).code == 0


def test_where_nothing_was_judged_there_is_no_page(refined: Command) -> None:
    content = raw(Path(FILES[0]))
    content["metrics"] = {"judged_on": "unknown"}
    archive.save(Path("fresh.pth"), {**content, "best_acc": 0.0})
    assert_refused(refined("scripts.report", "fresh.pth", "--html"), 2, "--html: nobody has evaluated fresh")
    assert not Path("runs/report.md").exists()
    assert refined("scripts.report", "fresh.pth").code == 0


DONE = Done(
    row="nin", label="NIN", seed=1, commands=["python -m prune.train"], seconds={"nin": 1.0},
    version={"nin": {"python": "3.11"}}, dataset="digits", pictures=360, judged_on="test", accuracy=90.0, epochs="2",
    precision={"nin": "fp32"}, arch="nin", cfg=[8, 4], cfg_before=None, macs=10, params=5, size_bits=80_000,
    bytes_counted=10_000, sha256={"nin": "ab"}, curve=[{"epoch": 1, "test_accuracy": 90.0}], machine="AMD",
)  # fmt: skip


@pytest.fixture
def ladder(workplace: Path) -> Path:
    """Results of a ladder: NIN twice, a pruned row, and one that has diverged."""
    folder = Path("results/digits")
    for known in (
        DONE,
        replace(DONE, seed=2, accuracy=92.0),
        replace(DONE, row="prune50", label="pruned 50 %", accuracy=80.0, cfg=[4, 2], cfg_before=[8, 4], curve=[]),
    ):
        stored.save(folder / f"{known.row}-s{known.seed}.json", known)
    stored.save(folder / "wbab-s1.json", Diverged(row="wbab", seed=1, diverged_in="wbab", commands=[]))
    return folder


def test_results_of_the_ladder_make_a_page(ladder: Path, command: Command) -> None:
    done = command("scripts.results", "--dataset", "digits", "--table", "--html")
    assert done.code == 0, done.err
    page = Page(Path("runs/results/digits/report.html").read_text(encoding="utf-8"))
    assert column(page, "name") == ["nin-s1", "nin-s2", "prune50-s1"]  # in the order of the ladder
    assert column(page, "score") == [90.0, 92.0, 80.0]
    assert "Without a score, so not shown: wbab, seed 1, diverged in wbab." in page.text
    assert "# nin: sha256 ab; python 3.11\npython -m prune.train" in page.text
    assert "does not hold the bits of each layer" in page.text
    assert "prune50-s1: its last stage has no epochs" in page.text
    texts = [dict(each["data"]["entries"])["text"] for each in page.models["ColumnDataSource"]
             if "layer" in dict(each["data"]["entries"])]  # fmt: skip
    assert texts == [["8", "4", "8", "4", "4", "2"]]


def test_results_stand_beside_checkpoints(ladder: Path, refined: Command, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(measure, "SECONDS", 0.02)
    done = refined("scripts.report", ladder / "nin-s1.json", FILES[0], "--html", "--json", "--measure")
    assert done.code == 0, done.err
    assert f"notice: not measured: {ladder / 'nin-s1.json'} holds no network" in done.err
    assert json.loads(done.out)["rows"][0]["type"] == "NIN, seed 1"
    page = Page(Path("runs/report.html").read_text(encoding="utf-8"))
    assert column(page, "name") == ["nin-s1", "nin_preprune"]
    drawn = [dict(each["data"]["entries"]) for each in page.models["ColumnDataSource"]]
    assert [set(data["file"]) for data in drawn if "layer" in data] == [{"nin-s1"}, {"nin_preprune"}, {"nin_preprune"}]
    assert "nin (nin-s1): channels kept" in page.text
    assert "nin (nin_preprune): bits of weights and inputs" in page.text


def test_an_old_result_is_named(ladder: Path, command: Command) -> None:
    path = ladder / "nin-s1.json"
    old = notes.to_json(replace(DONE, commands=None, version=None))
    path.write_text(json.dumps(old))
    for line in (("scripts.report", path, "--html"), ("scripts.results", "--dataset", "digits", "--table", "--html")):
        done = command(*line)
        assert_refused(done, 3, f"{path} is of an older version: it lacks commands, version")
        assert "scripts.results" in done.err.splitlines()[-1]
    assert command("scripts.report", path).code == 0  # its numbers are as good as ever


@pytest.mark.parametrize(
    ("content", "words"),
    [
        ("[]", "is no result of the ladder: it lacks row, seed, status"),
        ('{"row": "nin", "seed": 1, "status": "done"}', "is no result of the ladder: it lacks row, label"),
        ("{", "is no result of the ladder"),
        (json.dumps({**notes.to_json(DONE), "accuracy": "high"}), "is damaged: accuracy"),
        (json.dumps({**notes.to_json(DONE), "curve": [{"epoch": "one"}]}), "is damaged: curve"),
        (json.dumps({**notes.to_json(DONE), "cfg": 3, "commands": []}), "is damaged: cfg, commands"),
        (json.dumps({**notes.to_json(DONE), "cfg_before": [8, 4, 2]}), "is damaged: cfg has 2 widths, cfg_before 3"),
        (json.dumps(notes.to_json(Diverged(row="w", seed=3, diverged_in="w"))), "w, seed 3, diverged in w"),
    ],
)
def test_another_json_is_refused(content: str, words: str, workplace: Path, command: Command) -> None:
    Path("x.json").write_text(content)
    assert_refused(command("scripts.report", "x.json", "--html"), 2 if "diverged" in words else 3, "x.json", words)
    assert [path.name for path in workplace.iterdir()] == ["x.json"]


def test_widths_that_do_not_fit_are_named_for_a_ladder(ladder: Path, command: Command) -> None:
    stored.save(ladder / "nin-s1.json", replace(DONE, cfg_before=[8]))
    done = command("scripts.results", "--dataset", "digits", "--table", "--html")
    assert_refused(done, 3, "nin-s1.json is damaged: cfg has 2 widths, cfg_before 1")


def test_a_network_without_a_cfg_has_no_widths_on_the_page(ladder: Path) -> None:
    own = replace(DONE, arch="my.py:net", cfg=[], cfg_before=[8, 4, 4])
    assert results.entry(ladder / "nin-s1.json", own).layers == ()


def test_a_failed_step_leaves_the_page_of_the_rows_that_are_done(
    ladder: Path, command: Command, monkeypatch: pytest.MonkeyPatch
) -> None:
    node = runner.Node(Path("runs/results/digits/s1"), 1, "wtab")
    filled = (1, {node: UserError("no memory", "take fewer pictures", 5)})
    monkeypatch.setattr(fill, "fill", lambda *_: filled)
    line = ("scripts.results", "--dataset", "digits", "--html")
    done = command(*line)
    assert (done.code, done.err.splitlines()[-2:]) == (
        5,
        ["error: no memory", "hint: quant.wbwtab says: take fewer pictures"],
    )
    assert "written: runs/results/digits/report.html" in done.err
    assert column(Page(Path("runs/results/digits/report.html").read_text(encoding="utf-8")), "name")[0] == "nin-s1"
    monkeypatch.setattr(make, "write", refuse)
    failed = command(*line)
    assert failed.err.splitlines()[-3:] == [
        "notice: no web page: full",
        "error: no memory",
        "hint: quant.wbwtab says: take fewer pictures",
    ]


def refuse(*_: object, **__: object) -> None:
    raise UserError("full", "make room")


def test_a_run_without_an_accuracy_ends_with_a_notice(
    workplace: Path, command: Command, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fills(*_: object) -> tuple[int, dict]:
        stored.save(Path("results/digits/nin-s1.json"), Diverged(row="nin", seed=1, diverged_in="nin", commands=[]))
        return 0, {}

    monkeypatch.setattr(fill, "fill", fills)
    done = command("scripts.results", "--dataset", "digits", "--html")
    assert done.code == 0, done.err
    assert "notice: no web page: nin, seed 1, diverged in nin" in done.err
    Path("results/digits/table.md").unlink()
    assert_refused(
        command("scripts.results", "--dataset", "digits", "--table", "--html"), 2, "nobody has evaluated any row"
    )
    assert not Path("results/digits/table.md").exists()


def test_a_result_is_not_overwritten_by_the_report(ladder: Path, command: Command) -> None:
    done = command("scripts.report", ladder / "nin-s1.json", "--save", ladder / "nin-s1.md")
    assert_refused(done, 2, "is both input and output")
