"""Starting a new run: --resume never continues from another run's state. Resuming itself is in test_resume.py."""

from __future__ import annotations

import shlex
import shutil
import signal
from collections.abc import Callable
from pathlib import Path

import pytest
import torch

from engine.checkpoint import archive
from tests.conftest import assert_refused
from tests.faults.conftest import taken
from tests.tools.children import in_child
from tests.tools.stops import snapshot, stop

AFRESH = "--resume: no state in runs/nin yet, starting afresh\n"


def test_nothing_there_starts_afresh_and_says_so(line: tuple, whole: tuple, command: Callable) -> None:
    done = command(*line, "--resume", "auto")
    assert (done.code, done.err) == (0, AFRESH)
    assert taken() == whole  # and --resume leaves no trace in the file


def test_a_fresh_run_forgets_the_one_before(line: tuple, command: Callable) -> None:
    """Killed before its first save, a run cannot be resumed: the previous run's weights do not belong to it."""
    assert command(*line).code == 0
    shutil.copytree("runs", "before")
    whole = taken()
    Path("before").rename("runs")
    with stop(1, signal.SIGKILL):
        assert in_child(lambda: command(*line)) == -signal.SIGKILL
    assert {path.name for path in Path("runs/nin").iterdir()} == {".lock", "flags.json", "versions.json"}
    done = command(*line, "--resume")
    assert (done.code, done.err) == (0, AFRESH)
    assert taken() == whole


def test_another_torch_is_refused_by_name(line: tuple, command: Callable, monkeypatch: pytest.MonkeyPatch) -> None:
    mine = str(torch.__version__)
    assert command(*line).code == 0
    before = snapshot()
    monkeypatch.setattr(torch, "__version__", "9.9.0")
    assert_refused(command(*line, "--resume"), 2, f"belongs to a run with other settings: torch {mine} -> 9.9.0")
    assert snapshot() == before


def test_an_unfinished_run_is_put_aside_and_can_be_gone_on_with(line: tuple, whole: tuple, command: Callable) -> None:
    with stop(3, signal.SIGTERM):
        assert command(*line).code == 143
    with stop(1, signal.SIGKILL):
        assert in_child(lambda: command(*line)) == -signal.SIGKILL  # --resume was forgotten
    aside = "runs/nin/state.abandoned.pth"
    assert Path(aside).exists()
    assert not Path("runs/nin/state.pth").exists()
    assert command(*line, "--resume", aside).code == 0
    assert taken() == whole


def test_nothing_put_aside_is_lost(line: tuple, whole: tuple, command: Callable) -> None:
    """The long run is put aside first."""
    for batch in (9, 1):
        with stop(batch, signal.SIGTERM):
            assert command(*line).code == 143
    assert "--resume runs/nin/state.abandoned.2.pth" in command(*line).err
    assert archive.load(Path("runs/nin/state.abandoned.pth"))[0]["epoch"] == 1
    assert archive.load(Path("runs/nin/state.abandoned.2.pth"))[0]["epoch"] == 0
    assert command(*line, "--resume", "runs/nin/state.abandoned.pth").code == 0
    assert taken() == whole


def test_another_number_of_threads_is_refused_by_name(line: tuple, command: Callable) -> None:
    mine = torch.get_num_threads()
    assert command(*line).code == 0
    before = snapshot()
    done = command(*line, "--resume", "--threads", mine + 1)
    torch.set_num_threads(mine)
    assert_refused(done, 2, f"belongs to a run with other settings: threads {mine} -> {mine + 1}")
    assert snapshot() == before


def test_what_was_put_aside_is_said(line: tuple, command: Callable) -> None:
    with stop(3, signal.SIGTERM):
        assert command(*line).code == 143
    done = command(*line)
    told = f"python -m {shlex.join(line)} --resume runs/nin/state.abandoned.pth"
    assert done.err == f"notice: runs/nin held an unfinished run; to continue it: {told}\n"
    again = command(*line)
    assert "unfinished" not in again.err, "the second one was complete"


def test_a_run_folder_may_be_named(line: tuple, whole: tuple, command: Callable) -> None:
    with stop(3, signal.SIGTERM):
        assert command(*line).code == 143
    assert command(*line, "--resume", "runs/nin").code == 0
    assert taken() == whole
