"""Saving: wherever the process dies and however the disk fails, a file is the complete old one or the complete new one."""

from __future__ import annotations

import errno
import os
import random
import resource
import signal
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch

from engine.checkpoint import archive, format as checkpoint
from engine.errors import BAD_CHECKPOINT, CANNOT_WRITE, UserError
from engine.system import files
from engine.training.run_folder import RunFolder
from tests.conftest import NARROW, assert_refused
from tests.tools.children import KILLED, in_child

SIZES = (1, 300, 5_000, 70_000, 400_000)  # numbers in a tensor


def die(*_: object, **__: object) -> None:
    os._exit(KILLED)


def at(point: str) -> None:
    """Make this process die at a point of engine.system.files.write_bytes."""
    write, replace, syncs = os.write, os.replace, iter(range(9))
    if point == "before_write":
        os.write = die  # type: ignore[assignment]
    elif point == "mid_write":
        os.write = lambda handle, content: die(write(handle, content[: len(content) // 2]))  # type: ignore[assignment]
    elif point == "before_fsync":
        os.fsync = die
    elif point == "before_replace":
        os.replace = die
    elif point == "after_replace":
        os.replace = lambda *names: die(replace(*names))
    elif point == "before_dirsync":
        os.fsync = lambda handle: die() if next(syncs) else None  # the first call is for the file


POINTS = ("before_write", "mid_write", "before_fsync", "before_replace", "after_replace", "before_dirsync")


def state(tag: int, size: int) -> Any:
    """Return an argument for RunFolder.keep with a network of `size` numbers."""
    content = {
        "epoch": tag, "step": 1, "loss": 0.5, "penalty": 0.0, "right": 1, "seen": 2, "rows": [], "optimizer": {}, "schedule": {},
        "rng": [], "model": {"w": torch.full((size,), float(tag))},
    }  # fmt: skip
    return SimpleNamespace(step=1, rows=[], state_dict=lambda: content)


@pytest.mark.parametrize("size", SIZES)
@pytest.mark.parametrize("kind", ["state", "deliverable"])
@pytest.mark.parametrize("point", POINTS)
def test_killed_inside_a_save(point: str, kind: str, size: int, tmp_path: Path) -> None:
    path = tmp_path / f"{kind}.pth"

    def save(tag: int) -> None:
        if kind == "state":
            folder.keep(state(tag, size), {})
        else:
            archive.save(path, {"tag": torch.full((size,), tag)})

    folder = RunFolder(tmp_path)
    wholes = []
    for tag in (1, 2):
        save(tag)
        wholes.append(path.read_bytes())
    save(1)
    assert path.read_bytes() == wholes[0]
    assert in_child(lambda: (at(point), save(2))) == KILLED
    assert path.read_bytes() == wholes[point in ("after_replace", "before_dirsync")]
    if kind == "state":
        assert folder.previous_path.read_bytes() in wholes
    left = [p for p in tmp_path.iterdir() if p.name.endswith(".tmp")]
    assert len(left) == (point not in ("after_replace", "before_dirsync"))
    folder.close()
    files.check_writable(path)  # as the next command does
    RunFolder(tmp_path)
    assert not [p for p in tmp_path.iterdir() if p.name.endswith(".tmp")]


@pytest.mark.parametrize(("call", "links"), [("unlink", True), ("link", True), ("replace", True), ("replace", False)])
def test_killed_while_the_old_state_is_kept(
    call: str, links: bool, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """Without hard links only state.prev.pth exists for a moment; a resumed run uses it."""
    folder = RunFolder(tmp_path)
    for tag in (1, 2):
        folder.keep(state(tag, 10), {})

    def no_link(*_: object) -> None:
        raise OSError(errno.EPERM, "Operation not permitted")

    def save() -> None:
        if not links:
            os.link = no_link
        real, calls = getattr(os, call), iter(range(9))
        fatal = int(not links)  # the first replace then keeps the old state
        setattr(os, call, lambda *names, **more: die() if next(calls) == fatal else real(*names, **more))
        folder.keep(state(3, 10), {})

    assert in_child(save) == KILLED
    assert folder.state_path.exists() is links
    assert folder.state(folder.state_path, {})["epoch"] == 2
    assert ("continuing from" in capsys.readouterr().err) is not links


@pytest.mark.parametrize("kills", [30, pytest.param(100, marks=pytest.mark.slow)])
def test_many_blind_kills(kills: int, tmp_path: Path) -> None:
    path, draws, delays = tmp_path / "a.pth", random.Random(1), []
    wholes = [archive.to_bytes({"w": torch.full((20_000,), tag)}) for tag in (0, 1)]

    def forever() -> None:
        while True:
            for whole in wholes:
                files.write_bytes(path, whole)

    for _ in range(kills):
        if not (pid := os.fork()):
            forever()
        delays.append(draws.uniform(0, 0.02))
        time.sleep(delays[-1])
        os.kill(pid, signal.SIGKILL)
        os.waitpid(pid, 0)
        assert not path.exists() or path.read_bytes() in wholes
        files.sweep(path)
        assert os.listdir(tmp_path) in ([], ["a.pth"])
    assert path.exists()


@contextmanager
def room_for(count: int) -> Iterator[None]:
    """Limit this process's files to `count` bytes."""
    limits = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (count, limits[1]))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, limits)


@contextmanager
def disk_of(count: int) -> Iterator[None]:
    """Simulate a disk with `count` free bytes that accepts 1,000 bytes at a time."""
    write, left = os.write, count

    def limited(handle: int, content: Any) -> int:
        nonlocal left
        if not left:
            raise OSError(errno.ENOSPC, "No space left on device")
        took = write(handle, content[: min(left, 1000)])
        left -= took
        return took

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(os, "write", limited)
        yield


@pytest.mark.parametrize(("full", "words"), [(room_for, "file too large"), (disk_of, "disk full")])
def test_disks_full_at_forty_sizes(full: Callable, words: str, tmp_path: Path) -> None:
    path = tmp_path / "a.pth"
    archive.save(path, {"w": torch.zeros(2000)})
    old, new = path.read_bytes(), {"w": torch.ones(2000)}
    length = len(archive.to_bytes(new))
    for size in range(0, length, -(-length // 40)):
        with full(size), pytest.raises(UserError, match=rf"{words}: .*a\.pth needs {length:,} bytes") as fault:
            archive.save(path, new)
        assert (fault.value.code, path.read_bytes(), os.listdir(tmp_path)) == (CANNOT_WRITE, old, ["a.pth"])
    with full(length):
        archive.save(path, new)
    assert path.read_bytes() != old


@pytest.mark.parametrize("call", ["write", "fsync", "chmod", "replace"])
@pytest.mark.parametrize("code", [errno.EIO, errno.EDQUOT])
def test_a_call_that_fails_is_a_save_that_failed(
    call: str, code: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tmp_path / "a.pth"
    path.write_bytes(b"old")

    def fail(*_: object) -> None:
        raise OSError(code, os.strerror(code))

    monkeypatch.setattr(os, call, fail)
    with pytest.raises(UserError) as fault:
        files.write_bytes(path, b"new")
    monkeypatch.undo()
    assert (fault.value.code, path.read_bytes(), os.listdir(tmp_path)) == (CANNOT_WRITE, b"old", ["a.pth"])


def test_a_short_write_is_continued(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    write = os.write
    monkeypatch.setattr(os, "write", lambda handle, content: write(handle, content[:7]))
    files.write_bytes(tmp_path / "a", bytes(range(256)))
    assert (tmp_path / "a").read_bytes() == bytes(range(256))


@pytest.mark.parametrize("name", ["", "file/x.pth", "/proc/x.pth", "/dev/null"])
def test_places_are_refused_before_training(name: str, command: Callable, flags: tuple) -> None:
    Path("file").write_text("in the way")
    assert_refused(command("prune.train", *flags, "--save", Path.cwd() / name), CANNOT_WRITE, "cannot write")
    assert os.listdir() == ["file"]


def test_a_run_folder_that_cannot_be_written_is_refused_with_its_own_flag(command: Callable, flags: tuple) -> None:
    Path("file").write_text("in the way")
    done = command("prune.train", *flags, "--run_dir", "file/run")
    assert_refused(done, CANNOT_WRITE, "file/run")
    assert "--run_dir" in done.err


def test_a_full_disk_ends_a_run_that_goes_on_later(command: Callable, flags: tuple) -> None:
    line = ("prune.train", *flags, "--cfg", NARROW)
    assert command(*line).code == 0
    whole = Path("models_save/nin.pth").read_bytes()
    with room_for(5_000):
        done = command(*line)
    assert_refused(done, CANNOT_WRITE, "file too large", "runs/nin/state.pth")
    assert "--run_dir" in done.err
    assert "--resume" not in done.err  # this run has saved nothing yet
    assert Path("models_save/nin.pth").read_bytes() == whole
    Path("models_save/nin.pth").unlink()
    with pytest.MonkeyPatch.context() as patch:  # now there is no room for the output file
        real = checkpoint.save
        patch.setattr(checkpoint, "save", lambda *a: room(real, *a))
        done = command(*line)
    assert_refused(done, CANNOT_WRITE, "file too large", "nin.pth")
    assert command(*line, "--resume").code == 0
    assert Path("models_save/nin.pth").read_bytes() == whole


def room(save: Callable, *arguments: Any) -> None:
    with room_for(5_000):
        save(*arguments)


def test_what_is_replaced_is_named_and_stays_if_the_run_fails(command: Callable, flags: tuple) -> None:
    line = ("prune.train", *flags, "--cfg", NARROW)
    assert "replaced" not in command(*line).err
    whole = Path("models_save/nin.pth").read_bytes()
    assert "replaced models_save/nin.pth" in command(*line).err
    assert command(*line, "--lr", "1e30").code == 5
    assert Path("models_save/nin.pth").read_bytes() == whole


def test_a_damaged_state_falls_back_to_the_save_before(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    folder, draws = RunFolder(tmp_path), random.Random(2)
    for tag in (1, 2):
        folder.keep(state(tag, 500), {"lr": 1})
    whole, before = folder.state_path.read_bytes(), folder.previous_path.read_bytes()
    assert folder.state(folder.state_path, {"lr": 1})["epoch"] == 2
    for n in range(100):
        place = draws.randrange(len(whole))
        bad = bytearray(whole)
        bad[place] ^= 1 << draws.randrange(8)
        folder.state_path.write_bytes(bad if n % 2 else whole[:place])
        try:
            found = folder.state(folder.state_path, {"lr": 1})
        except UserError as fault:
            raise AssertionError(f"flip at {place}") from fault
        warned = f"warning: {folder.state_path}" in (err := capsys.readouterr().err)
        assert (found["epoch"], err.count("\n")) == ((1, 1) if warned else (2, 0))
        assert warned or torch.equal(found["model"]["w"], torch.full((500,), 2.0))
        assert not warned or folder.state_path.read_bytes() == before  # it has replaced the damaged one
        folder.previous_path.write_bytes(before)
    for path in (folder.state_path, folder.previous_path):
        path.write_bytes(whole[:-9])
    with pytest.raises(UserError, match=r"state\.pth") as fault:
        folder.state(folder.state_path, {"lr": 1})
    assert fault.value.code == BAD_CHECKPOINT


def test_the_save_before_of_another_run_is_no_help(tmp_path: Path) -> None:
    folder = RunFolder(tmp_path)
    for tag, lr in ((1, 0.1), (2, 0.2)):
        folder.keep(state(tag, 10), {"lr": lr})
    folder.state_path.write_bytes(b"damaged")
    with pytest.raises(UserError, match=r"state\.pth") as fault:
        folder.state(folder.state_path, {"lr": 0.2})
    assert fault.value.code == BAD_CHECKPOINT
    folder.state_path.unlink()
    assert folder.state(folder.state_path, {"lr": 0.1})["epoch"] == 1
