"""The ladder: its rows are commands as they stand, it goes on where it was, and nothing half-done counts."""

from __future__ import annotations

import json
import shlex
import signal
import sys
import time
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace

import pytest

from engine.errors import UserError
from scripts import ladder, ladder_run, ladder_table
from scripts.ladder_run import Node, Runner
from tests.conftest import NARROW, assert_refused
from tests.test_readme import parser

Command = Callable[..., SimpleNamespace]

IN_SMALL = {
    "nin": f"prune.train --arch nin --cfg {NARROW}",
    "sparse": f"prune.train --arch nin -sr --s 0.0001 --cfg {NARROW}",
    "prune50": "prune.normal_regular --percent 0.5 --model {sparse}",
    "wbab": "quant.wbwtab --W 2 --A 2 --refine {nin}",
}
RESULTS = ("--dataset", "digits", "--epochs", "2", "--image_size", "8", "--precision", "fp32", "--device", "cpu")


def test_the_rows_are_those_of_the_tables() -> None:
    names = [row.name for row in ladder.ROWS]
    assert len(names) == len(set(names)) == 39
    assert {row.step for row in ladder.ROWS} == set(ladder.STEPS)
    assert [row.name for row in ladder.choose(["headline"])] == [
        "nin", "prune50_refine", "w8a8", "w4a4", "int8_q1_fold0", "wbab", "wtab",
    ]  # fmt: skip
    assert ladder.choose(["all"]) == list(ladder.ROWS)


@pytest.mark.parametrize("step", ladder.STEPS)
def test_every_step_is_a_command_a_user_could_type(step: str) -> None:
    module, *argv = shlex.split(ladder.STEPS[step].format_map({name: f"{name}.pth" for name in ladder.STEPS}))
    parser(module).parse_args(argv)
    assert ladder.chain(step)[-1] == step


def test_refining_takes_half_the_epochs_and_pruning_none() -> None:
    assert [ladder.epochs(step, 41) for step in ("nin", "prune50_refine", "w8a8", "prune50", "ptq_kl")] == [
        41,
        20,
        20,
        None,
        None,
    ]
    assert ladder.epochs("prune50_scratch", 41) == 41
    assert ladder.epochs("w8a8", 1) == 1
    assert ladder.epochs("nin", None) is None


def test_it_fills_the_table_and_goes_on_where_it_was(
    workplace: Path, command: Command, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(ladder, "STEPS", IN_SMALL)
    Path("README.md").write_text("before\n<!-- results:digits -->\nold\n<!-- /results:digits -->\nafter\n")
    Path("other.md").write_text("no markers\n")
    assert_refused(
        command("scripts.results", *RESULTS, "--readme", "README.md", "other.md"), 2, "other.md has no place"
    )
    monkeypatch.setattr(ladder, "ROWS", tuple(row for row in ladder.ROWS if row.step in IN_SMALL))
    monkeypatch.setattr(ladder_table, "ROWS", ladder.ROWS)

    first = command("scripts.results", *RESULTS, "--rows", "nin", "prune50*", "--readme", "README.md")
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
    assert row["version"]["nin"].keys() == {"python", "torch", "torchvision", "model-compression", "commit"}
    assert row["commands"] == [
        f"python -m prune.train --arch nin --cfg {NARROW} --dataset digits --data data --seed 1 --device cpu "
        "--save runs/results/digits/s1/nin.pth --eval_batch_size 500 --image_size 8 "
        "--run_dir runs/results/digits/s1/nin --epochs 2 --precision fp32"
    ]
    readme = Path("README.md").read_text()
    assert readme.startswith("before\n<!-- results:digits -->\n| row ")
    assert readme.endswith("<!-- /results:digits -->\nafter\n")
    assert f"| NIN, 5x5 second stage | 2 | 1 | {row['accuracy']:.2f} % |" in readme
    assert "| W1A1 |  |  | not run |" in readme
    assert {p.name for p in Path("results/digits").glob("*.png")} == {"curves.png", "size.png", "kept.png"}

    stamps = {p: p.stat().st_mtime_ns for p in Path("results/digits").glob("*.json")}
    models = {p: p.stat().st_mtime_ns for p in Path("runs/results/digits/s1").glob("*.pth")}
    again = command("scripts.results", *RESULTS, "--rows", "all")
    assert again.code == 0, again.err
    assert {p: p.stat().st_mtime_ns for p in stamps} == stamps, "what is done is not done again"
    assert {p: p.stat().st_mtime_ns for p in models} == models
    assert Path("results/digits/wbab-s1.json").exists()
    assert "not run" not in Path("results/digits/table.md").read_text()

    assert_refused(command("scripts.results", *RESULTS, "--epochs", "3"), 2, "another ladder", "--epochs: 2 -> 3")
    assert_refused(command("scripts.results", *RESULTS, "--val", "0", "--image_size", "9"), 2, "--image_size: 8 -> 9")
    assert_refused(command("scripts.results", *RESULTS, "--recipe", "seed"), 2, "--recipe: default -> seed")
    monkeypatch.setattr("quant.recipes._DIGITS_EPOCHS", {"refine": 7, "scratch": 12})
    assert_refused(command("scripts.results", *RESULTS), 2, "recipe of dorefa")


def test_another_data_set_under_the_same_name_is_refused(workplace: Path, command: Command) -> None:
    from PIL import Image

    def pictures(place: str, count: int) -> None:
        for part in ("train", "test"):
            for kind in ("a", "b"):
                folder = Path(place, "mine", part, kind)
                folder.mkdir(parents=True)
                for n in range(count):
                    Image.new("RGB", (8, 8)).save(folder / f"{n}.png")

    pictures("here", 2)
    pictures("there", 3)
    flags = ("--dataset", "imagefolder", "--minutes", "0.0001", "--rows", "nin")
    assert command("scripts.results", *flags, "--data", "here/mine").code == 0
    refused = command("scripts.results", *flags, "--data", "there/mine")
    assert_refused(refused, 2, "imagefolder 4 + 4 pictures of 2 classes -> imagefolder 6 + 6 pictures of 2 classes")


@pytest.mark.parametrize(
    ("flags", "words"),
    [((), "one data set"), (("--dataset", "digits", "--rows", "w9a9"), "no row 'w9a9'")],
    ids=["no data set", "no such row"],
)
def test_usage(flags: tuple[str, ...], words: str, command: Command) -> None:
    assert_refused(command("scripts.results", *flags), 2, words)
    assert not Path("results").exists()


STEP = """
import json, signal, sys, time
name, code, seconds = sys.argv[1], int(sys.argv[2]), float(sys.argv[3])
def stop(*_):
    open(name + ".stopped", "w").close()
    sys.exit(143)
signal.signal(signal.SIGTERM, stop)
open(name + ".started", "a").write("x")
time.sleep(seconds)
if code:
    print("error: no luck", file=sys.stderr)
    sys.exit(code)
open(name + ".pth", "w").write(name)
print(json.dumps({"path": name}))
"""


@pytest.fixture
def fakes(workplace: Path, monkeypatch: pytest.MonkeyPatch) -> Callable[..., tuple[Runner, list[Node], list[str]]]:
    """A ladder a -> b -> c and d alone, of a script that only sleeps; gives runner, nodes and what ended in order."""
    Path("fake_step.py").write_text(STEP)
    monkeypatch.setenv("PYTHONPATH", str(workplace))
    monkeypatch.setattr(ladder, "STEPS", {"a": "x", "b": "x {a}", "c": "x {b}", "d": "x"})

    def make(codes: dict[str, int], seconds: float = 0.0, jobs: int = 1, deadline: float = float("inf")):  # type: ignore[no-untyped-def]
        def words(node: Node) -> list[str]:
            return ["fake_step", str(node.model.with_suffix("")), str(codes.get(node.step, 0)), str(seconds)]

        return Runner(words, jobs, deadline), [Node(Path("work"), 1, step) for step in "abcd"], []

    return make


@pytest.mark.parametrize("jobs", [1, 2])
def test_parents_run_first(jobs: int, fakes: Callable) -> None:
    runner, nodes, order = fakes({}, jobs=jobs)
    assert runner.run(nodes[::-1], lambda node: order.append(node.step)) is True
    assert sorted(order) == ["a", "b", "c", "d"]
    assert order.index("a") < order.index("b") < order.index("c")
    assert runner.run(nodes, lambda node: order.append("again")) is True
    assert "again" not in order


def test_a_lost_file_is_made_again(fakes: Callable) -> None:
    runner, nodes, order = fakes({})
    runner.run(nodes, lambda node: None)
    nodes[3].model.write_text("something else")
    assert nodes[3].ended() is None
    runner.run(nodes, lambda node: order.append(node.step))
    assert order == ["d"]


def test_children_of_a_file_that_was_made_again_are_made_again(fakes: Callable) -> None:
    runner, nodes, order = fakes({})
    runner.run(nodes, lambda node: None)
    nodes[0].model.write_text("another a")
    nodes[0].note.write_text(
        json.dumps({**json.loads(nodes[0].note.read_text()), "sha256": ladder_run.sha256(nodes[0].model)})
    )
    runner.run(nodes, lambda node: order.append(node.step))
    assert order == ["b"], "c reads b, which came out the same"


def test_a_file_that_goes_while_others_run_is_no_endless_wait(fakes: Callable) -> None:
    runner, nodes, _ = fakes({})
    with pytest.raises(UserError, match="waits for a file that is gone"):
        runner.run(nodes[:2], lambda node: node.model.unlink())


def test_a_step_that_diverges_takes_its_children_along_and_the_ladder_goes_on(fakes: Callable) -> None:
    runner, nodes, order = fakes({"b": 5})
    assert runner.run(nodes, lambda node: order.append(node.step)) is True
    notes = [node.ended() for node in nodes]
    assert [note["status"] for note in notes] == ["done", "diverged", "diverged", "done"]
    assert notes[2]["diverged_in"] == "b"
    assert not runner.failed


def test_a_step_that_fails_is_no_result(fakes: Callable, capsys: pytest.CaptureFixture[str]) -> None:
    runner, nodes, _ = fakes({"b": 3})
    assert runner.run(nodes, lambda node: None) is True
    assert [bool(node.ended()) for node in nodes] == [True, False, False, True]
    assert {node.step: code for node, code in runner.failed.items()} == {"b": 3, "c": 3}
    assert "failed: b, seed 1, exit code 3: error: no luck" in capsys.readouterr().err


def test_when_the_time_is_over_running_steps_are_asked_to_stop(fakes: Callable) -> None:
    runner, nodes, _ = fakes({}, seconds=30, jobs=2)
    runner.deadline = time.monotonic() + 1.5
    started = time.monotonic()
    assert runner.run(nodes, lambda node: None) is False
    assert time.monotonic() - started < 15
    assert sorted(p.name for p in Path("work").glob("*.stopped")) == ["a.stopped", "d.stopped"]
    assert not list(Path("work").glob("*.json"))
    assert not Path("work/b.started").exists()
    spent = float(Path("work/a.spent").read_text())
    assert 0.5 < spent < 15, "the next run counts these seconds, too"


def test_no_step_starts_after_the_deadline(fakes: Callable) -> None:
    runner, nodes, _ = fakes({}, deadline=time.monotonic())
    assert runner.run(nodes, lambda node: None) is False
    assert not Path("work").exists()


def test_rows_with_several_seeds_show_their_spread() -> None:
    def result(row: str, seed: int, accuracy: float) -> dict[str, object]:
        return {
            "row": row, "seed": seed, "status": "done", "accuracy": accuracy, "epochs": "2", "macs": 10, "params": 5,
            "size_bits": 16_000_000 if row == "nin" else 4_000_000, "pictures": 9, "judged_on": "test", "dataset": "x", "machine": "m",
        }  # fmt: skip

    found = {
        "nin": [result("nin", 1, 90.0)],
        "wbab": [result("wbab", 1, 80.0), result("wbab", 2, 83.0), {"row": "wbab", "seed": 3, "status": "diverged", "diverged_in": "wbab"}],
    }  # fmt: skip
    lines = ladder_table.markdown(found, list(ladder.choose(["nin", "wbab", "wtab"]))).splitlines()
    assert lines[2] == "| NIN, 5x5 second stage | 2 | 1 | 90.00 % | 10 | 5 | 2.0000 | - | - |"
    assert (
        lines[3] == "| W1A1 | 2 | 2 | 81.50 % +- 2.12; diverged (seed 3, in wbab) | 10 | 5 | 0.5000 | 75.00 % | +8.50 |"
    )
    assert lines[4] == "| WtA1 |  |  | not run |  |  |  |  |  |"


def test_terminating_the_ladder_ends_its_steps(fakes: Callable, workplace: Path) -> None:
    """No orphan goes on training; what was begun is kept."""
    import subprocess

    fakes({})
    code = (
        "from pathlib import Path; from engine import signals; from scripts import ladder, ladder_run\n"
        "ladder.STEPS = {'a': 'x'}\n"
        "r = ladder_run.Runner(lambda n: ['fake_step', 'work/a', '0', '60'], 1, float('inf'))\n"
        "with signals.stopping():  # as every command has it\n"
        "    r.run([ladder_run.Node(Path('work'), 1, 'a')], print)"
    )
    home = Path(ladder_run.__file__).parents[1]
    process = subprocess.Popen([sys.executable, "-c", f"import sys; sys.path.insert(0, {str(home)!r})\n{code}"],
                               stderr=subprocess.DEVNULL)  # fmt: skip
    until = time.monotonic() + 60
    while not Path("work/a.started").exists() and time.monotonic() < until:
        time.sleep(0.05)
    process.send_signal(signal.SIGTERM)
    process.wait(30)
    assert Path("work/a.stopped").exists()
    assert not Path("work/a.json").exists()
