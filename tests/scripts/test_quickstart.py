"""The quickstart: its steps are valid commands, and quick versions run through to the table."""

from __future__ import annotations

import importlib
import json
import re
import shlex
import sys
from collections.abc import Callable
from importlib.util import find_spec
from pathlib import Path
from types import SimpleNamespace

import pytest

from deploy.racing import measure
from scripts import chain, quickstart
from tests.tools.contents import raw
from tests.tools.readme import options, parser, shortened

Command = Callable[..., SimpleNamespace]


def test_steps_can_be_parsed_and_name_the_files_they_leave() -> None:
    names = [name for *_, name in quickstart.STEPS]
    assert len(set(names)) == len(names) == 14
    for what, line, name in quickstart.STEPS:
        module, *argv = shlex.split(line)
        args = parser(module).parse_args(argv)
        assert what
        assert name.startswith(args.arch or "nin")
        if "--epochs" in options(module):
            assert args.epochs, f"{line}: the quickstart says how long it takes"
        if module == "prune.train":
            parser(module).parse_args([*argv, "--precision", "fp32"])
        if "--cfg" in argv:
            assert args.dataset == "digits"  # fresh networks; later steps read the data set from their files
            own = importlib.import_module("models.files").build(args.arch or "nin").cfg
            assert args.cfg == [width // 2 for width in own], "docs/results.md says half width"


def small(monkeypatch: pytest.MonkeyPatch) -> None:
    """Add flags that make every step quick."""
    monkeypatch.setattr(measure, "SECONDS", 0.02)

    def shorter(line: str) -> str:
        module, *argv = shlex.split(re.sub(r" --(cfg|epochs|dataset) \S+", "", line))
        return shlex.join([module, *shortened(module, argv)])

    monkeypatch.setattr(
        quickstart, "STEPS", tuple((what, shorter(line), name) for what, line, name in quickstart.STEPS)
    )


def test_in_small_it_runs_to_the_table(workplace: Path, command: Command, monkeypatch: pytest.MonkeyPatch) -> None:
    small(monkeypatch)
    done = command("scripts.quickstart", "--precision", "fp32")
    assert done.code == 0, done.err
    assert not Path("models_save").exists()  # it does not touch the user's own models_save
    monkeypatch.chdir("runs/quickstart")
    files = [f"models_save/{name}.pth" for *_, name in quickstart.STEPS]
    small_file = "models_save/nin_wbab_merged.safetensors"
    assert sorted(str(p) for p in Path("models_save").iterdir()) == sorted([*files, small_file])
    assert re.findall(r"^\[(\d+)/17\] ", done.out, re.M) == [str(n) for n in range(1, 18)]
    assert done.out.count("\n$ python -m ") == 16
    assert len(re.findall(r"^digits/\d-shows-\d\.png: class \d [\d.]+ %$", done.out, re.M)) == 5
    table = Path("report.md").read_text()
    assert table.partition("\n\n")[0] in done.out
    rows = json.loads(Path("report.json").read_text())
    assert [row["file"] for row in rows] == files
    assert [row["accuracy"] for row in rows] == [round(raw(Path(path))["best_acc"], 4) for path in files]
    assert {row["dataset"] for row in rows} == {"digits"}
    assert Path("report.csv").is_file()
    if find_spec("bokeh"):
        assert "nin_wbab_merged" in Path("report.html").read_text(encoding="utf-8")
        assert re.findall(r"^the table, .* as a web page: (.*)$", done.out, re.M) == ["runs/quickstart/report.html"]
    right = next(row["accuracy"] for row in rows if row["file"].endswith("wbab_merged.pth"))
    title = f"[17/17] running the packed file, right on {right:.2f} % of the test digits, on five digits"
    assert title in done.out
    packed = {row["file"]: row["packed_bytes"] for row in rows}
    assert packed["models_save/nin_wbab_merged.pth"] == pytest.approx(Path(small_file).stat().st_size, abs=200)
    assert all(row["milliseconds"] > 0 for row in rows)
    sizes = dict(zip((name for *_, name in quickstart.STEPS), (row["size_bits"] for row in rows), strict=True))
    assert sizes["nin_wbab_merged"] < sizes["nin_wbab"] < sizes["nin_wta32"] < sizes["nin_w4a4"] < sizes["nin_w8a8"]
    assert sizes["nin_w8a8"] < sizes["nin_refine"] == sizes["nin_prune"] < sizes["nin"]


def test_without_the_extra_there_is_no_page(workplace: Path, command: Command, monkeypatch: pytest.MonkeyPatch) -> None:
    called: list[str] = []
    monkeypatch.setattr(chain, "call", called.append)
    monkeypatch.setitem(sys.modules, "bokeh", None)
    done = command("scripts.quickstart")
    assert done.code == 0, done.err
    assert [line for line in called if line.startswith("scripts.report") and "--html" not in line]
    assert not [line for line in called if "--html" in line]
    assert "web page:" not in done.out
    assert done.err == "notice: no web page without bokeh: pip install matplotlib bokeh\n"


def test_a_step_that_fails_ends_it_with_its_exit_code(
    workplace: Path, command: Command, monkeypatch: pytest.MonkeyPatch
) -> None:
    small(monkeypatch)
    monkeypatch.setattr(quickstart, "STEPS", quickstart.STEPS[2:])  # nothing there to prune
    done = command("scripts.quickstart")
    assert done.code == 3
    assert [line.split(" ")[0] for line in done.err.splitlines()] == ["error:", "hint:"] * 2
    assert "python -m prune.normal_regular" in done.err
    assert "[2/" not in done.out
    assert not list(Path("runs/quickstart").iterdir())


HINTED = ["prune.gc", "prune.train --refine", "prune.train --evaluate", "prune.normal_regular --arch slimming"]
OTHERS = [
    "quant.ptq",
    "prune.train --arch nin_gc --refine",
    "prune.train -sr --evaluate",
    "quant.wqaq --arch nin_gc --refine",
]


@pytest.mark.parametrize(
    "line", [*HINTED, *(pytest.param(line, marks=pytest.mark.slow) for line in OTHERS), "bn_merge --W 3"]
)
def test_who_begins_anywhere_and_follows_the_hints_arrives(line: str, workplace: Path, command: Command) -> None:
    """A missing input's hint is the command that makes it: run it, then try again."""
    stack = [line]
    for _ in range(10):
        module, *argv = stack[-1].split()
        done = command("bn_merge.__main__" if module == "bn_merge" else module, *shortened(module, argv))
        if done.code == 0:
            stack.pop()
        else:
            assert done.code == 3, done.err
            assert "no such file" in done.err
            stack.append(done.err.rpartition("python -m ")[2])
        if not stack:
            return
    pytest.fail(f"running in circles: {stack}")
