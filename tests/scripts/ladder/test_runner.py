"""Running steps: parents first, interruption and resuming, and unfinished steps do not count."""

from __future__ import annotations

import json
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import pytest

from engine.errors import UserError
from scripts.ladder import fill, runner as runners, steps
from scripts.ladder.notes import Hardware
from scripts.ladder.runner import Node, Runner
from scripts.ladder.steps import Step
from tests.tools.ladder import options

STEP = """
import json, os, signal, sys, time
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
print(json.dumps({"path": name, "threads": os.environ["OMP_NUM_THREADS"]}))
"""

FAKES = {
    "a": Step("a", "x"),
    "b": Step("b", "x", reads="--model", parent="a"),
    "c": Step("c", "x", reads="--model", parent="b"),
    "d": Step("d", "x"),
}


@pytest.fixture
def fakes(workplace: Path, monkeypatch: pytest.MonkeyPatch) -> Callable[..., tuple[Runner, list[Node], list[str]]]:
    """Make a ladder a -> b -> c and a separate d of a script that only sleeps; return runner, nodes and finished steps in order."""
    Path("fake_step.py").write_text(STEP)
    monkeypatch.setenv("PYTHONPATH", str(workplace))
    monkeypatch.setattr(runners, "PROGRAM", (sys.executable, "-m"))
    monkeypatch.setattr(steps, "STEPS", FAKES)

    def make(codes: dict[str, int], seconds: float = 0.0, jobs: int = 1, deadline: float = float("inf")):  # type: ignore[no-untyped-def]
        def words(node: Node) -> list[str]:
            return ["fake_step", str(node.model.with_suffix("")), str(codes.get(node.step, 0)), str(seconds)]

        return (
            Runner(words, jobs, deadline, Hardware("cpu", threads=3)),
            [Node(Path("work"), 1, step) for step in "abcd"],
            [],
        )

    return make


@pytest.mark.parametrize("jobs", [1, 2])
def test_parents_run_first(jobs: int, fakes: Callable) -> None:
    runner, nodes, order = fakes({}, jobs=jobs)
    assert runner.run(nodes[::-1], lambda node: order.append(node.step)) is True
    assert sorted(order) == ["a", "b", "c", "d"]
    assert order.index("a") < order.index("b") < order.index("c")
    assert runner.run(nodes, lambda node: order.append("again")) is True
    assert "again" not in order
    note = json.loads(nodes[1].note.read_text())
    assert note["command"] == "python -m fake_step work/b 0 0.0"
    assert (note["device"], note["threads"], note["result"]["threads"]) == ("cpu", 3, "3"), "as it ran"


def test_a_step_is_a_command_of_ours_beside_a_package_of_the_users(
    workplace: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    Path("scripts").mkdir()
    Path("scripts/__init__.py").write_text("raise OSError('the user')")
    monkeypatch.setattr(steps, "STEPS", {"a": Step("a", "x")})
    node = Node(Path("work"), 1, "a")
    node.folder.mkdir()
    node.model.touch()
    runner = Runner(lambda _: ["scripts.summary", "--cfg", "8,8,8,8,8,8,8,8"], 1, float("inf"))
    assert runner.run([node], lambda _: None) is True
    note = node.ended()
    assert note, node.model.with_suffix(".log").read_text()
    assert note.command == "python -m scripts.summary --cfg 8,8,8,8,8,8,8,8", "as notes before say it"
    assert "params" in (note.result or {})


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
        json.dumps({**json.loads(nodes[0].note.read_text()), "sha256": runners.sha256(nodes[0].model)})
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
    assert [note and note.status for note in notes] == ["done", "diverged", "diverged", "done"]
    assert json.loads(nodes[2].note.read_text()) == {"status": "diverged", "diverged_in": "b"}
    assert not runner.failed
    nodes[1].note.unlink()  # made again, with more luck
    runner, nodes, order = fakes({})
    assert runner.run(nodes, lambda node: order.append(node.step)) is True
    assert order == ["b", "c"]
    assert [note and note.status for note in map(Node.ended, nodes)] == ["done"] * 4


def test_a_step_that_fails_is_no_result(fakes: Callable, capsys: pytest.CaptureFixture[str]) -> None:
    runner, nodes, _ = fakes({"b": 3})
    assert runner.run(nodes, lambda node: None) is True
    assert [bool(node.ended()) for node in nodes] == [True, False, False, True]
    assert {node.step: fault.code for node, fault in runner.failed.items()} == {"b": 3, "c": 3}
    assert "failed: b, seed 1, exit code 3: error: no luck" in capsys.readouterr().err
    with Path("work/b.log").open("a") as log:
        log.write("$ prune.train\nKilled\n")
    assert str(runners._fault(nodes[1], 137)) == "Killed", "the fault of the run before is not that of this one"


def test_when_the_time_is_over_running_steps_are_asked_to_stop(fakes: Callable) -> None:
    runner, nodes, _ = fakes({}, seconds=30, jobs=2)
    runner.deadline = time.monotonic() + 1.5
    started = time.monotonic()
    assert runner.run(nodes, lambda node: None) is False
    assert time.monotonic() - started < 15
    assert sorted(p.name for p in Path("work").glob("*.stopped")) == ["a.stopped", "d.stopped"]
    assert not list(Path("work").glob("*.json"))
    assert not Path("work/b.started").exists()
    spent = json.loads(Path("work/a.spent").read_text())["seconds"]
    assert 0.5 < spent < 15, "the next run counts these seconds, too"
    runner.hardware, environments = Hardware(threads=3), []
    Path("work/a.spent").write_text('{"seconds": 1.5, "threads": 2}')
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(subprocess, "Popen", lambda *_, env, **__: environments.append(env["OMP_NUM_THREADS"]))
        jobs = [runner._start(node) for node in (nodes[0], nodes[3])]
    assert environments == ["2", "3"], "what was begun goes on with as many threads"
    assert [(job.before, job.threads) for job in jobs] == [(1.5, 2), (pytest.approx(spent, abs=5), 3)]


def test_no_step_starts_after_the_deadline(fakes: Callable) -> None:
    runner, nodes, _ = fakes({}, deadline=time.monotonic())
    assert runner.run(nodes, lambda node: None) is False
    assert not Path("work").exists()


def test_a_folder_that_a_killed_ladder_still_uses_is_waited_for(
    fakes: Callable, monkeypatch: pytest.MonkeyPatch
) -> None:
    runner, nodes, order = fakes({"d": 7})
    commands = runner.command
    tries: list[Node] = []

    def free_at_the_second_try(node: Node) -> list[str]:
        tries.append(node)
        words = commands(node)
        return words if len(tries) == 1 else [*words[:2], "0", "0"]

    runner.command = free_at_the_second_try
    runner.run(nodes[3:], lambda node: order.append(node.step))
    assert (order, runner.failed) == (["d"], {})


def test_rows_at_once_share_the_threads_that_were_asked_for(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("torch.get_num_threads", lambda: 8)
    monkeypatch.setenv("OMP_NUM_THREADS", "8")
    assert fill._threads(options(threads=8, jobs=3)) == 2
    assert fill._threads(options(threads=None, jobs=3)) == 8, "said of each process"
    monkeypatch.delenv("OMP_NUM_THREADS")
    assert fill._threads(options(threads=None, jobs=3)) == 2


@pytest.mark.parametrize("code", ["setup.py", "model_compression.py"])
def test_commits_are_dirty_where_code_is_changed(code: str, workplace: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def git(*words: str) -> None:
        subprocess.run(["git", "-c", "user.name=n", "-c", "user.email=e", *words], check=True, capture_output=True)

    Path("scripts").mkdir()
    monkeypatch.setattr(runners, "__file__", str(workplace / "scripts" / "ladder" / "runner.py"))
    for path in ("scripts/a.py", "README.md", code):
        Path(path).write_text("old")
    git("init")
    git("add", ".")
    git("commit", "-m", "m")
    Path("README.md").write_text("new")
    clean = runners._commit()
    assert clean
    assert "dirty" not in clean
    Path(code).write_text("new")
    assert runners._commit() == f"{clean}-dirty"


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGKILL])
def test_however_the_ladder_ends_its_steps_end(number: int, fakes: Callable, workplace: Path) -> None:
    """No orphan continues to train; unfinished steps and their seconds are kept."""
    fakes({})
    code = (
        "from pathlib import Path; from engine.system import signals; from scripts.ladder import runner, steps\n"
        "steps.STEPS, runner.KEEP_SECONDS = {'a': steps.Step('a', 'x')}, 0.1\n"
        "runner.PROGRAM = (runner.sys.executable, '-m')\n"
        "r = runner.Runner(lambda n: ['fake_step', 'work/a', '0', '60'], 1, float('inf'))\n"
        "with signals.stopping():  # as every command has it\n"
        "    r.run([runner.Node(Path('work'), 1, 'a')], print)"
    )
    home = Path(runners.__file__).parents[2]
    process = subprocess.Popen([sys.executable, "-c", f"import sys; sys.path.insert(0, {str(home)!r})\n{code}"],
                               stderr=subprocess.DEVNULL)  # fmt: skip
    until = time.monotonic() + 60
    while not (Path("work/a.started").exists() and Path("work/a.spent").exists()) and time.monotonic() < until:
        time.sleep(0.05)
    process.send_signal(number)
    process.wait(30)
    while not Path("work/a.stopped").exists() and time.monotonic() < until:
        time.sleep(0.05)
    assert Path("work/a.stopped").exists()
    assert not Path("work/a.json").exists()
    assert json.loads(Path("work/a.spent").read_text())["seconds"] > 0
