"""The ladder: its rows are valid commands, it resumes where it stopped, and unfinished steps do not count."""

from __future__ import annotations

import json
import re
import subprocess
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace

import pytest

from engine.errors import UserError
from engine.system.lock import Lock
from scripts.ladder import rows, runner, steps
from scripts.ladder.steps import Step
from tests.conftest import NARROW, assert_refused
from tests.tools.children import Fork

Command = Callable[..., SimpleNamespace]

IN_SMALL = {
    **steps.STEPS,
    "nin": Step("nin", "prune.train", ("--arch", "nin", "--cfg", NARROW)),
    "sparse": Step("sparse", "prune.train", ("--arch", "nin", "-sr", "--s", "0.0001", "--cfg", NARROW)),
}
NET = """
from torch import nn

def net(classes=10):
    return nn.Sequential(
        nn.Conv2d(3, 8, 3), nn.BatchNorm2d(8), nn.ReLU(), nn.Conv2d(8, 8, 3), nn.BatchNorm2d(8), nn.ReLU(),
        nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(8, classes)
    )
"""
SMALL_ROWS = tuple(row for row in rows.ROWS if row.step in ("nin", "sparse", "prune50", "wbab"))
RESULTS = ("--dataset", "digits", "--epochs", "2", "--image_size", "8", "--precision", "fp32", "--device", "cpu")


def snapshot(place: Path) -> dict[Path, tuple[int, bytes]]:
    return {path: (path.stat().st_mtime_ns, path.read_bytes()) for path in place.rglob("*") if path.is_file()}


def test_the_rows_are_those_of_the_tables() -> None:
    names = [row.name for row in rows.ROWS]
    assert len(names) == len(set(names))
    assert {row.step for row in rows.ROWS} == set(steps.STEPS)
    assert [row.name for row in rows.choose(["headline"])] == [
        "nin", "prune50_refine", "w8a8", "w4a4", "int8_q1_fold0", "wbab", "wtab",
    ]  # fmt: skip
    assert rows.choose(["all"]) == list(rows.ROWS)


def test_the_rows_of_another_network() -> None:
    """The rows that begin with NIN use the other network's name; every step names the network."""
    found = {row.name: row for row in rows.of("torchvision:resnet18")}
    assert {"nin", "sparse", "prune50_wtab", "ptq_kl", "lsq_w2a2"} <= set(found)
    assert not {"nin_3x3", "nin_gc", "gc_prune40", "depthwise_standard", "depthwise_separable"} & set(found)
    assert (found["nin"].label, found["sparse"].label, found["w8a8"].label) == (
        "resnet18",
        "resnet18 sparse",
        "DoReFa W8A8",
    )
    assert rows.of("nin") == list(rows.ROWS)
    with pytest.raises(UserError, match="no row 'nin_gc'"):
        rows.choose(["nin_gc"], "my.py:net")
    words = [
        steps.STEPS[name].words({"nin": "a.pth", "sparse": "b.pth"}, "my.py:net")
        for name in ("sparse", "w8a8", "prune50")
    ]
    assert [line[line.index("--arch") + 1] for line in words] == ["my.py:net"] * 3
    assert words[1][-4:] == ["--refine", "a.pth", "--arch", "my.py:net"]


@pytest.fixture(params=["forks", pytest.param("processes", marks=pytest.mark.slow)])
def _steps(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> None:
    """Run steps in forks of this process, or in new processes, which import for some seconds each."""
    if request.param == "forks":
        forking = SimpleNamespace(Popen=Fork, run=subprocess.run, TimeoutExpired=subprocess.TimeoutExpired)
        monkeypatch.setattr(runner, "subprocess", forking)


@pytest.mark.usefixtures("_steps")
def test_the_ladder_of_a_network_of_ones_own(workplace: Path, command: Command) -> None:
    Path("my.py").write_text(NET)
    flags = (
        "--dataset", "digits", "--image_size", "8", "--epochs", "1", "--cpu", "--precision", "fp32", "--threads", "1",
    )  # fmt: skip
    done = command("scripts.results", *flags, "--rows", "nin", "ptq_mse", "--arch", "my.py:net")
    assert done.code == 0, done.err
    assert done.path == "results/digits-net/table.md"
    table_ = Path(done.path).read_text()
    assert "| net |" in table_
    assert "grouped" not in table_
    assert json.loads(Path("results/digits-net/ladder.json").read_text())["--arch"] == "my.py:net"
    row = json.loads(Path("results/digits-net/ptq_mse-s1.json").read_text())
    assert row["arch"] == "my.py:net"
    assert all("--arch my.py:net" in line for line in row["commands"])


@pytest.mark.usefixtures("_steps")
def test_it_fills_the_table_and_goes_on_where_it_was(
    workplace: Path, command: Command, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(steps, "STEPS", IN_SMALL)
    Path("README.md").write_text("before\n<!-- results:digits -->\nold\n<!-- /results:digits -->\nafter\n")
    Path("other.md").write_text("no markers\n")
    assert_refused(
        command("scripts.results", *RESULTS, "--readme", "README.md", "other.md"), 2, "other.md has no markers"
    )
    monkeypatch.setattr(rows, "ROWS", SMALL_ROWS)

    assert_refused(command("scripts.results", "--dataset", "digits", "--table"), 2, "no results in results/digits/")
    with_threads = (*RESULTS, "--num_workers", "0", "--threads", "1")
    first = command("scripts.results", *with_threads, "--rows", "nin", "prune50*")
    assert first.code == 0, first.err
    assert first.path == "results/digits/table.md"
    found = {p.name: json.loads(p.read_text()) for p in Path("results/digits").glob("*-s1.json")}
    assert sorted(found) == ["nin-s1.json", "prune50-s1.json", "prune50_raw-s1.json"]
    raw, after = found["prune50_raw-s1.json"], found["prune50-s1.json"]
    assert raw["sha256"] == after["sha256"], "two figures of one file"
    assert (raw["commands"], raw["macs"]) == (after["commands"], after["macs"])
    row = found["nin-s1.json"]
    assert row["status"] == "done"
    assert (row["epochs"], row["pictures"], row["dataset"], row["judged_on"]) == ("2", 360, "digits", "test")
    assert row["accuracy"] == row["curve"][-1]["test_accuracy"], "that of the last epoch"
    assert (row["device"], row["precision"], list(row["version"])) == ("cpu", {"nin": "fp32"}, ["nin"])
    assert row["threads"] == {"nin": 1}
    assert row["version"]["nin"].keys() == {"python", "torch", "torchvision", "model-compression", "commit"}
    assert row["commands"] == [
        f"python -m prune.train --arch nin --cfg {NARROW} --dataset digits --data data --seed 1 --device cpu "
        "--save runs/results/digits/s1/nin.pth --num_workers 0 "
        "--image_size 8 --run_dir runs/results/digits/s1/nin --epochs 2 --precision fp32"
    ]
    assert "updated README.md" in first.err
    readme = Path("README.md").read_text()
    assert readme.startswith("before\n<!-- results:digits -->\n| row ")
    assert readme.endswith("<!-- /results:digits -->\nafter\n")
    assert f"| NIN, 5x5 second stage | 2 | 1 | {row['accuracy']:.2f} % |" in readme
    assert "| W1A1 |" not in readme
    assert re.search(r"Not run: .*W1A1\.", readme)
    assert {p.name for p in Path("results/digits").glob("*.png")} == {
        "curves.png", "size.png", "headline.png", "kept.png",
    }  # fmt: skip

    stamps = {p: p.stat().st_mtime_ns for p in Path("results/digits").glob("*.json")}
    models = {p: p.stat().st_mtime_ns for p in Path("runs/results/digits/s1").glob("*.pth")}
    again = command("scripts.results", *RESULTS, "--rows", "all")
    assert again.code == 0, again.err
    assert {p: p.stat().st_mtime_ns for p in stamps} == stamps, "what is done is not done again"
    assert {p: p.stat().st_mtime_ns for p in models} == models
    assert Path("results/digits/wbab-s1.json").exists()
    assert "Not run" not in Path("results/digits/table.md").read_text()

    readme = Path("README.md").read_text()
    Path("README.md").write_text(readme.replace("| W1A1 |", "| mine |"))
    older = json.loads(Path("results/digits/ladder.json").read_text())
    del older["step wbab"]
    Path("results/digits/ladder.json").write_text(json.dumps(older))
    published = snapshot(Path("results"))
    nothing = command("scripts.results", *RESULTS, "--rows", "nin")
    assert (nothing.code, nothing.path) == (0, "results/digits/table.md")
    assert snapshot(Path("results")) == published, "a call that adds nothing writes nothing"
    stopped = command("scripts.results", *RESULTS, "--rows", "nin", "--seeds", "2", "--minutes", "1e-9")
    assert "stopped before any row was done; results/digits/ already held 1 results of these rows\n" in stopped.err
    assert snapshot(Path("results")) == published
    assert "nothing new: results/digits/ already held 1 results of these rows, and none was added" in nothing.err
    assert "| mine |" in Path("README.md").read_text(), "a call that adds nothing leaves the READMEs alone"
    Path("README.md").write_text(readme)
    Path("results/digits/wbab-s1.json").unlink()
    assert command("scripts.results", *RESULTS, "--rows", "wbab").code == 0
    assert "step wbab" in json.loads(Path("results/digits/ladder.json").read_text()), "with the row that is added"

    shown = command("scripts.results", "--dataset", "digits", "--table", "--json", "--rows", "nin")
    assert json.loads(shown.out)["rows"] == [{"row": "nin", "seed": 1, "status": "done", "accuracy": row["accuracy"]}]

    assert_refused(command("scripts.results", *RESULTS, "--epochs", "3"), 2, "another ladder", "--epochs: 2 -> 3")
    assert_refused(command("scripts.results", *RESULTS, "--val", "0", "--image_size", "9"), 2, "--image_size: 8 -> 9")
    assert_refused(command("scripts.results", *RESULTS, "--recipe", "seed"), 2, "--recipe: default -> seed")
    assert_refused(command("scripts.results", *RESULTS, "--flip"), 2, "--flip: default -> True")
    lock = Lock(Path("runs/results/digits"))
    assert_refused(command("scripts.results", *RESULTS), 7, "runs/results/digits is in use by process")
    lock.release()

    # as in a fresh clone: another machine made the published rows, and nin is trained again
    published = Path("results/digits/wbab-s1.json")
    published.unlink()
    nin = json.loads(Path("results/digits/nin-s1.json").read_text())
    Path("results/digits/nin-s1.json").write_text(json.dumps({**nin, "sha256": {"nin": "another"}}))
    anew = command("scripts.results", *RESULTS[:-1], "auto", "--rows", "wbab")
    assert anew.code == 0, anew.err
    assert "notice: nin, seed 1, was made again and its file differs" in anew.err
    assert "depend on it run again: nin\n" in anew.err
    assert json.loads(Path("results/digits/nin-s1.json").read_text()) == nin, "with the command and device that ran"
    assert stamps[Path("results/digits/prune50-s1.json")] == Path("results/digits/prune50-s1.json").stat().st_mtime_ns

    published.write_text(json.dumps({**json.loads(published.read_text()), "sha256": {"nin": "mixed", "wbab": "in"}}))
    assert_refused(command("scripts.results", "--dataset", "digits", "--table"), 3, "nin-s1.json and", "wbab-s1.json")
    published.write_text("{")
    assert_refused(command("scripts.results", "--dataset", "digits", "--table"), 3, "wbab-s1.json is damaged")
    published.unlink()
    Path("runs/results/digits/s1/wbab.json").write_text("[]")
    assert_refused(command("scripts.results", *RESULTS), 3, "s1/wbab.json is damaged")
    Path("results/digits/ladder.json").write_text("")
    assert_refused(command("scripts.results", *RESULTS), 3, "ladder.json is damaged")

    monkeypatch.setattr("quant.recipes._DIGITS_EPOCHS", {"refine": 7, "scratch": 12})
    Path("results/digits/ladder.json").write_text(json.dumps({"recipe of dorefa": "another"}))
    assert_refused(command("scripts.results", *RESULTS), 2, "recipe of dorefa")


def test_another_data_set_under_the_same_name_is_refused(workplace: Path, command: Command) -> None:
    from PIL import Image

    def pictures(place: str, count: int, colour: str = "black") -> None:
        for part in ("train", "test"):
            for kind in ("a", "b"):
                folder = Path(place, "mine", part, kind)
                folder.mkdir(parents=True)
                for n in range(count):
                    Image.new("RGB", (8, 8), colour).save(folder / f"{n}.png")

    pictures("here", 2)
    pictures("there", 3)
    pictures("elsewhere", 2, "navy")
    flags = ("--dataset", "imagefolder", "--minutes", "1e-9", "--rows", "nin")
    assert command("scripts.results", *flags, "--data", "here/mine").code == 0
    assert command("scripts.results", *flags, "--data", "there/mine").code == 0, "nothing has come of the first one"
    assert command("scripts.results", *flags, "--data", "here/mine").code == 0
    Path("results/mine/nin-s1.json").write_text(json.dumps({"row": "nin", "seed": 1, "status": "stale"}))
    refused = command("scripts.results", *flags, "--data", "there/mine")
    assert_refused(refused, 2, "imagefolder 4 + 4 pictures of 2 classes -> imagefolder 6 + 6 pictures of 2 classes")
    assert_refused(command("scripts.results", *flags, "--data", "elsewhere/mine"), 2, "mean: [0.0, 0.0, 0.0] -> [0.0,")


@pytest.mark.parametrize(
    ("flags", "code", "words"),
    [
        ((), 2, "one data set"),
        (("--dataset", "auto"), 2, "'auto' is not one of"),
        (("--dataset", "digits", "--rows", "w9a9"), 2, "no row 'w9a9'"),
        (("--dataset", "digits", "--val", "2000"), 2, "of 1,437 training pictures at least 2 have to stay"),
        (("--dataset", "digits", "--cpu", "--device", "cuda"), 2, "--cpu contradicts"),
        (("--dataset", "imagefolder", "--data", "nowhere"), 4, "no pictures under nowhere/train/"),
    ],
    ids=["no data set", "no set named", "no such row", "nothing left to train on", "two devices", "no pictures"],
)
def test_what_can_be_known_before_is_said_before(
    flags: tuple[str, ...], code: int, words: str, command: Command, workplace: Path
) -> None:
    assert_refused(command("scripts.results", *flags), code, words)
    assert not list(workplace.iterdir())


def test_folders_that_cannot_be_written_and_a_missing_gpu(command: Command, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("torch.cuda.is_available", lambda: False)
    assert_refused(command("scripts.results", "--dataset", "digits", "--device", "cuda"), 2, "no GPU")
    Path("runs").write_text("no folder")
    assert_refused(command("scripts.results", "--dataset", "digits"), 6, "cannot write runs/results/digits/")


def test_a_misspelt_row_gets_the_nearest_name(command: Command) -> None:
    refused = command("scripts.results", "--dataset", "digits", "--rows", "nim_3x3")
    assert refused.err.endswith("hint: did you mean nin_3x3?\n")


@pytest.mark.usefixtures("_steps")
def test_one_fault_of_all_steps_is_said_last_and_hinders_no_corrected_call(
    command: Command, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(steps, "STEPS", {**IN_SMALL, "nin": Step("nin", "prune.train", ("--cfg", "8,8"))})
    failed = command("scripts.results", *RESULTS, "--rows", "nin", "wbab")
    assert (failed.code, failed.out) == (2, "")
    error, hint = failed.err.splitlines()[-2:]
    assert error.startswith("error: ") and "8" in error and "steps failed" not in error  # noqa: PT018
    assert hint.startswith("hint: prune.train says: its own widths: --cfg "), "scripts.results has no --cfg"
    corrected = (*RESULTS, "--rows", "nin", "--epochs", "3", "--minutes", "1e-9")
    assert command("scripts.results", *corrected).code == 0
