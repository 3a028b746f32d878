"""One run in a folder: a second one is refused and told of the first, a dead process holds no lock, limited file systems work."""

from __future__ import annotations

import errno
import fcntl
import os
import signal
import socket
import time
from collections.abc import Callable
from pathlib import Path

import pytest

from engine.errors import CANNOT_WRITE, LOCKED, UserError
from engine.system import messages
from engine.system.lock import Lock
from engine.training.run_folder import RunFolder
from tests.conftest import NARROW, assert_refused
from tests.tools.children import Server


def contend(path: Path, start: int, result: int, end: int) -> None:
    """In a child: wait until `start` is closed, try to lock, report the result, and hold the lock until `end` is closed."""
    os.read(start, 1)
    try:
        folder = RunFolder(path)
        answer = f"{os.getpid()} 0 "
    except UserError as fault:
        folder, answer = None, f"{os.getpid()} {fault.code} {fault}"  # type: ignore[assignment]
    os.write(result, answer.encode() + b"\n")
    os.read(end, 1)
    del folder


@pytest.mark.parametrize("_", range(20))
def test_of_two_at_once_one_is_refused(_: int, tmp_path: Path) -> None:
    start, result, end = os.pipe(), os.pipe(), os.pipe()
    pids = []
    for _ in range(2):
        if not (pid := os.fork()):
            os.close(start[1])
            os.close(end[1])
            contend(tmp_path, start[0], result[1], end[0])
            os._exit(0)
        pids.append(pid)
    os.close(start[1])
    os.close(result[1])
    answers = [os.read(result[0], 4096).decode()]
    while "".join(answers).count("\n") < 2:
        answers.append(os.read(result[0], 4096).decode())
    os.close(end[1])
    assert [os.waitpid(pid, 0)[1] for pid in pids] == [0, 0]
    for handle in (start[0], result[0], end[0]):
        os.close(handle)
    (winner, code, _), (_, refused, what) = sorted(
        (line.split(" ", 2) for line in "".join(answers).splitlines()), key=lambda words: int(words[1])
    )
    assert (int(code), int(refused)) == (0, LOCKED)
    assert what == f"{tmp_path} is in use by process {winner} on {socket.gethostname()}"


def test_a_command_is_refused_and_changes_nothing(command: Callable, flags: tuple) -> None:
    first = RunFolder(Path("runs/nin"))
    line = ("prune.train", "--cfg", NARROW, *flags)
    done = command(*line)
    assert_refused(done, LOCKED, f"runs/nin is in use by process {os.getpid()} on {socket.gethostname()}")
    assert "--run_dir" in done.err
    assert os.listdir("runs/nin") == [".lock"]
    assert not Path("models_save").exists()
    first.close()
    assert os.listdir("runs/nin") == []
    assert command(*line).code == 0


def test_a_folder_is_free_after_kill_9(server: Server, workplace: Path, flags: tuple) -> None:
    line = ("prune.train", "--cfg", NARROW, *flags, "--epochs", "1000")
    pid = server.start(workplace, *line)
    while not Path("runs/nin/state.pth").exists():
        time.sleep(0.01)
    with pytest.raises(UserError, match=f"process {pid} on ") as fault:
        RunFolder(workplace / "runs/nin")
    assert fault.value.code == LOCKED
    os.kill(pid, signal.SIGKILL)
    assert server.wait(pid).status == -signal.SIGKILL
    RunFolder(workplace / "runs/nin")


def test_a_loader_process_that_outlives_its_parent_holds_nothing(tmp_path: Path) -> None:
    told, tell = os.pipe()
    if not (pid := os.fork()):
        folder = RunFolder(tmp_path)  # noqa: F841
        if not (loader := os.fork()):
            time.sleep(20)
            os._exit(0)
        os.write(tell, str(loader).encode())
        time.sleep(20)
        os._exit(0)
    loader = int(os.read(told, 20))
    os.kill(pid, signal.SIGKILL)
    os.waitpid(pid, 0)
    try:
        RunFolder(tmp_path)
        os.kill(loader, 0)  # it is alive
    finally:
        os.kill(loader, signal.SIGKILL)


def test_a_fork_leaves_the_lock_with_its_parent(tmp_path: Path) -> None:
    first = RunFolder(tmp_path)
    if not (pid := os.fork()):
        first.close()
        os._exit(0)
    os.waitpid(pid, 0)
    with pytest.raises(UserError, match="in use"):
        RunFolder(tmp_path)


def test_a_lock_that_is_taken_away_just_before_counts_for_nothing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The holder removes the file and releases the lock after this process has opened the file."""
    real, calls = fcntl.flock, []

    def late(handle: int, how: int) -> None:
        if not calls:
            (tmp_path / ".lock").unlink()
        calls.append(how)
        real(handle, how)

    monkeypatch.setattr(fcntl, "flock", late)
    lock = Lock(tmp_path)
    monkeypatch.undo()
    assert len(calls) == 2
    with pytest.raises(UserError, match="in use"):
        Lock(tmp_path)
    lock.release()
    Lock(tmp_path)


def test_a_lock_file_that_cannot_be_opened(tmp_path: Path) -> None:
    (tmp_path / ".lock").mkdir()
    with pytest.raises(UserError, match=r"cannot write .*\.lock") as fault:
        RunFolder(tmp_path)
    assert fault.value.code == CANNOT_WRITE


@pytest.mark.parametrize("code", [errno.ENOLCK, errno.ENOTSUP, errno.ENOSYS])
def test_file_systems_without_locks_links_and_folder_syncs(
    code: int, command: Callable, flags: tuple, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Each missing feature gives one warning; running and resuming work as usual."""
    line = ("prune.train", "--cfg", NARROW, *flags)
    assert command(*line).code == 0
    whole = Path("models_save/nin.pth").read_bytes()
    messages.warn_once.cache_clear()

    def fail(*_: object) -> None:
        raise OSError(code, os.strerror(code))

    sync = os.fsync
    monkeypatch.setattr(os, "fsync", lambda h: fail() if os.path.isdir(f"/proc/self/fd/{h}") else sync(h))
    monkeypatch.setattr(fcntl, "flock", fail)
    monkeypatch.setattr(os, "link", fail)
    done = command(*line)
    messages.warn_once.cache_clear()
    assert done.code == 0
    warnings = [text for text in done.err.splitlines() if text.startswith("warning: ")]
    assert sorted(("locked" in text, "synced" in text) for text in warnings) == [(False, True), (True, False)]
    assert Path("models_save/nin.pth").read_bytes() == whole
    assert Path("runs/nin/state.prev.pth").exists()
    assert "already complete" in command(*line, "--resume").err
