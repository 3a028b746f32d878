"""The table of results: every number by hand, in all formats; no output is written if it cannot be."""

from __future__ import annotations

import csv
import json
import shutil
import sys
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace

import pytest
import torch

from engine.checkpoint import archive
from engine.system.terminal import columns
from models.registry import build
from scripts import table
from scripts.table import ResultRow
from tests.conftest import NARROW, SMALL
from tests.tools.contents import raw
from tests.tools.original import under_its_names
from tests.tools.refusals import refused, snapshot
from tests.tools.residual import residual

FILES = [f"models_save/nin{name}.pth" for name in ("", "_w2a2", "_w2a2_merged")]

# nin with 8 channels everywhere, on 8x8 pictures: 3 -> 8 by 5x5; 8 -> 8 by 1x1, 1x1, 5x5, 1x1, 1x1, 3x3, 1x1; 8 -> 10 by 1x1
FIRST, LAST = 3 * 8 * 25 + 8, 8 * 10 + 10  # weights and biases of the two layers that stay float
INNER, BIASES = 8 * 8 * (5 * 1 + 25 + 9), 7 * 8  # weights and biases of the other seven
CHANNELS = 8 * 8 + 10  # of batch norms: gamma, beta, mean and variance each
BITS = [
    32 * (FIRST + INNER + BIASES + LAST + 4 * CHANNELS),
    2 * INNER + 32 * (FIRST + BIASES + LAST + 4 * CHANNELS),  # the scale of DoReFa codes is a constant
    2 * INNER + 32 * (FIRST + BIASES + LAST + 7 * 8),  # no batch norm, but a scale for each inner filter
]
MACS = 64 * (600 + 2 * 64) + 16 * (1600 + 2 * 64) + 4 * (576 + 64 + 80)  # 8x8, pooled to 4x4, pooled to 2x2
PARAMS = [FIRST + INNER + BIASES + LAST + 2 * CHANNELS] * 2 + [FIRST + INNER + BIASES + LAST + 7 * 8]

Command = Callable[..., SimpleNamespace]
another = residual


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Make a folder with a float file, its 2-bit form, and its merged form."""
    from bn_merge import __main__ as merge
    from prune import train
    from quant import wqaq

    folder = tmp_path_factory.mktemp("made")
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(folder)
        assert train.main([*SMALL, "--cfg", NARROW]) == 0
        assert wqaq.main([*SMALL, "--Wbits", "2", "--Abits", "2", "--refine", FILES[0], "--epochs", "2"]) == 0
        assert merge.main(["--model", FILES[1], "--cpu"]) == 0
    return folder


@pytest.fixture
def saved(workplace: Path, made: Path) -> Path:
    shutil.copytree(made / "models_save", workplace / "models_save")
    return workplace


def test_the_numbers_of_real_files(saved: Path, command: Command) -> None:
    done = command("scripts.report", *FILES, "--json")
    rows = json.loads(done.out)["rows"]
    assert [row["size_bits"] for row in rows] == BITS == [113_472, 38_592, 30_912]
    assert [row["params"] for row in rows] == PARAMS
    assert [row["macs"] for row in rows] == [MACS] * 3 == [77_120] * 3
    assert [row["accuracy"] for row in rows] == [round(raw(Path(path))["best_acc"], 4) for path in FILES]
    assert [row["epochs"] for row in rows] == ["1", "1+2", "1+2"]
    assert [row["type"].partition(") ")[2] for row in rows] == ["float", "w2a2", "w2a2, merged"]
    assert [row["remarks"] for row in rows] == ["full precision", *["first and last layer float"] * 2]
    assert {(row["dataset"], row["judged_on"]) for row in rows} == {("digits", "test")}
    assert [row["file"] for row in rows] == FILES
    state = raw(Path(FILES[2]))["state_dict"]
    codes = sum(v.numel() for k, v in state.items() if v.dtype == torch.int8 and k.endswith("codes"))
    assert codes == INNER  # tensors counted at 2 bits are stored as integers


def test_all_four_forms_say_the_same(saved: Path, command: Command) -> None:
    done = command("scripts.report", *FILES, "--save", "out/table.md")
    assert (done.code, done.path) == (0, "out/table.md"), done.err
    text = Path("out/table.md").read_text()
    shown, _, note = text.partition("\n\n")
    assert note.strip() == table.note([])
    assert shown in done.out
    rows = [[cell.strip() for cell in line.strip("|").split("|")] for line in shown.splitlines()]
    assert rows[0] == list(table.HEADER)
    plain = json.loads(Path("out/table.json").read_text())
    assert [(f"{row['accuracy']:.2f} %", f"{row['macs']:,}", f"{row['params']:,}") for row in plain] == [
        tuple(row[3:6]) for row in rows[2:]
    ]
    with open("out/table.csv", newline="") as file:
        for line, row in zip(csv.DictReader(file), plain, strict=True):
            line["accuracy"] = line.pop("accuracy_percent")
            assert float(line.pop("size_MB")) == row["size_bits"] / 8e6
            assert line == {name: "" if value is None else str(value) for name, value in row.items()}
    assert [row["compression_percent"] for row in plain] == [None, 65.9898, 72.758]
    accuracies = [raw(Path(path))["best_acc"] for path in FILES]
    assert [row["loss_points"] for row in plain] == [None, *(round(accuracies[0] - a, 4) for a in accuracies[1:])]
    assert [row[6] for row in rows[2:]] == ["0.0142", "0.0048", "0.0039"]  # 113,472 bits are 14,184 bytes
    assert [row[7] for row in rows[2:]] == ["-", "65.99 %", "72.76 %"]  # 1 - 38,592 / 113,472, 1 - 30,912 / 113,472
    assert [row[8] for row in rows[2:]] == ["-", *(f"{accuracies[0] - a:+.2f}" for a in accuracies[1:])]
    pytest.importorskip("matplotlib")
    assert Path("out/table.png").read_bytes().startswith(b"\x89PNG\r\n")
    assert sorted(p.name for p in Path("out").iterdir()) == [f"table.{end}" for end in ("csv", "json", "md", "png")]


def test_the_first_file_is_the_baseline(saved: Path, command: Command) -> None:
    rows = json.loads(command("scripts.report", FILES[2], FILES[0], "--json").out)["rows"]
    assert [row["compression_percent"] for row in rows] == [None, -267.0807]  # 1 - 113,472 / 30,912


ROW = ResultRow("a", "digits", "1", 90.0, 222_486_528, 969_822, 8_000_000, "b|c", "test", "f")
OTHER = ResultRow("d", "digits", "1+2", 88.755, 61_608_640, 276_943, 1_500_000, "e", "test", "g")


def test_formulas_and_the_units_of_the_original() -> None:
    first, second = table.cells([ROW, OTHER])
    assert first == ["a", "digits", "1", "90.00 %", "222,486,528", "969,822", "1.0000", "-", "-", "b|c"]
    assert second[6:9] == ["0.1875", "81.25 %", "+1.25"]
    seed = table.cells([ROW, OTHER], "seed")
    assert [row[4:6] for row in seed] == [["0.21", "0.92"], ["0.06", "0.26"]]  # as in the original's first table
    better = table.cells([OTHER, ROW])[1]
    assert better[7:9] == ["-433.33 %", "-1.25"]
    lines = table.markdown([ROW, OTHER], "seed").splitlines()
    assert "GFLOPs (MACs / 2^30)" in lines[0]
    assert len({len(line) for line in lines}) == 1
    assert "b\\|c" in lines[2]  # otherwise the table would have one more column


def test_what_is_too_small_for_two_decimals_has_three_digits() -> None:
    tiny = replace(ROW, macs=77_120, params=3_546)
    shown = table.cells([tiny, replace(ROW, macs=46_792_704, params=87_390)], "seed")
    assert [row[4:6] for row in shown] == [["0.0000718", "0.00338"], ["0.0436", "0.08"]]


def test_numbers_are_rounded_where_they_are_shown() -> None:
    rows = [replace(ROW, accuracy=10.28), replace(ROW, accuracy=10.280000000000001)]
    assert table.cells(rows)[1][8] == "+0.00"  # not -0.00
    record = table.records(rows)[1]
    assert json.dumps([record["accuracy"], record["loss_points"]]) == "[10.28, 0.0]"


def test_losses_are_of_the_same_pictures_or_not_shown(
    saved: Path, command: Command, monkeypatch: pytest.MonkeyPatch
) -> None:
    rows = [ROW, OTHER, replace(OTHER, dataset="CIFAR-10"), replace(OTHER, judged_on="val")]
    assert [row[8] for row in table.cells(rows)] == ["-", "+1.25", "-", "-"]
    assert [row[7] for row in table.cells(rows)] == ["-", *["81.25 %"] * 3]  # sizes can be compared
    assert [row["loss_points"] for row in table.records(rows)] == [None, 1.245, None, None]
    made = iter(rows)
    monkeypatch.setattr("scripts.describe.row", lambda *_: next(made))
    monkeypatch.setattr(table, "draw", lambda rows: b"")
    notices = [line for line in command("scripts.report", *[FILES[0]] * 4).err.splitlines() if "no loss" in line]
    where = "evaluated on CIFAR-10 (test), digits (val), the baseline on digits (test)"
    assert notices == [f"notice: no loss for 2 of 4 rows: {where}"]
    made = iter(rows[:2])
    assert "no loss" not in command("scripts.report", *FILES[:2]).err
    made = iter([ROW, OTHER, replace(OTHER, accuracy=None)])
    assert "notice: no loss for 1 of 3 rows: not evaluated\n" in command("scripts.report", *[FILES[0]] * 3).err


def test_columns_are_as_wide_as_their_widest_cell() -> None:
    assert columns([["layer", "MACs"], ["a.name.longer.than.all.others.conv", "12,345,678,901"], ["b", ""]]) == [
        "layer                                         MACs",
        "a.name.longer.than.all.others.conv  12,345,678,901",
        "b                                                 ",
    ]


def test_pictures_need_matplotlib_and_nothing_else_does(
    saved: Path, command: Command, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, "matplotlib", None)
    done = command("scripts.report", *FILES)
    assert (done.code, done.path) == (0, "runs/report.md")
    assert "no picture without matplotlib" in done.err
    assert sorted(p.name for p in Path("runs").iterdir()) == ["report.csv", "report.json", "report.md"]


def test_files_of_the_original_have_a_row(workplace: Path, command: Command) -> None:
    state = build("nin", [8] * 8).state_dict()
    for given, words in ((under_its_names(state), "nin original file"), (state, "nin weights from elsewhere")):
        torch.save({"state_dict": given, "best_acc": 12.5}, "old.pth")
        (row,) = json.loads(command("scripts.report", "old.pth", "--json").out)["rows"]
        assert (row["type"], row["dataset"], row["accuracy"], row["epochs"]) == (words, "unknown", 12.5, "?")
        assert (row["size_bits"], row["judged_on"]) == (BITS[0], "unknown")


def test_a_missing_file_leaves_nothing_behind(saved: Path, command: Command) -> None:
    before = snapshot(saved)
    for name in ("gone.pth", "gone.json"):
        refused(command("scripts.report", FILES[0], f"models_save/{name}"), 3, f"models_save/{name}: no such file")
    assert snapshot(saved) == before


@pytest.mark.parametrize("target", [f"{FILES[0]}/table.md", "folder.md"])
def test_what_cannot_be_written_leaves_nothing_behind(target: str, saved: Path, command: Command) -> None:
    Path("folder.md").mkdir()
    before = snapshot(saved)
    refused(command("scripts.report", *FILES, "--save", target), 6, f"cannot write {target}")
    assert snapshot(saved) == before


def test_a_sibling_that_cannot_be_written_leaves_nothing_behind(saved: Path, command: Command) -> None:
    Path("out/table.json").mkdir(parents=True)
    refused(command("scripts.report", *FILES, "--save", "out/table.md"), 6, "out/table.json")
    assert [p.name for p in Path("out").iterdir()] == ["table.json"]


def test_what_is_replaced_is_named(saved: Path, command: Command, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(table, "draw", lambda rows: b"x")
    assert "replaced" not in command("scripts.report", *FILES).err
    Path("runs/report.csv").unlink()
    done = command("scripts.report", *FILES)
    assert "replaced runs/report.md, runs/report.json, runs/report.png" in done.err.splitlines()
    monkeypatch.setattr(table, "draw", lambda rows: None)
    done = command("scripts.report", *FILES)
    assert "replaced runs/report.md, runs/report.csv, runs/report.json" in done.err.splitlines()
    assert done.err.splitlines()[-1].endswith("matplotlib bokeh; runs/report.png is that of an earlier table")


@pytest.mark.parametrize(("name", "stem"), [("v1.2.md", "v1.2"), ("t.md", "t"), ("t.TXT", "t")])
def test_siblings_are_named_after_the_whole_name(name: str, stem: str) -> None:
    assert [str(p) for p in table.outputs(Path("o", name))] == [
        f"o/{n}" for n in (name, f"{stem}.csv", f"{stem}.json", f"{stem}.png")
    ]


def test_arch_is_named_once_for_each_network_of_the_users(saved: Path, command: Command) -> None:
    """Two names for one network are enough for this test."""
    content = raw(Path(FILES[0]))
    own = ["tests.tools.residual:residual", "tests.scripts.test_report:another"]
    for name, arch in zip("ab", own, strict=True):
        fields = {"arch": arch, "cfg": [16, 24, 20], "state_dict": residual().state_dict()}
        archive.save(Path(f"{name}.pth"), {**content, **fields})
    files, trust = (FILES[0], "a.pth", "b.pth"), "if you trust that module, add --arch "
    for given in ((), ("--arch", "nin"), ("--arch", own[1])):
        done = command("scripts.report", *files, *given)
        assert (done.code, done.err.splitlines()[-1]) == (2, f"hint: {trust}{own[0]}")
    done = command("scripts.report", *files, "--arch", own[0], "--arch", own[1], "--json")
    assert [row["type"].partition(" ")[0] for row in json.loads(done.out)["rows"]] == ["nin", *own]


@pytest.mark.parametrize("name", ["t.csv", "t.json", "t.png", "t.pth", "v1.2", "t"])
def test_a_table_ends_in_md(name: str, saved: Path, command: Command) -> None:
    """Another file, such as a checkpoint that is not in the report, would be replaced by the table."""
    done = command("scripts.report", FILES[0], "--save", name)
    refused(done, 2, f"argument --save: {name!r} does not end in .md")
    assert done.err.splitlines()[-1] == "hint: name the file F.md"
    assert not Path(name).exists()


def test_a_checkpoint_is_not_overwritten_by_its_report(saved: Path, command: Command) -> None:
    before = snapshot(saved)
    refused(command("scripts.report", *FILES, "--save", FILES[0]), 2, "does not end in .md")
    Path("a.md").write_bytes(Path(FILES[0]).read_bytes())
    before = snapshot(saved)
    refused(command("scripts.report", "a.md", "--save", "./out/../a.md"), 2, "is both input and output")
    assert snapshot(saved) == before
