"""A file is written completely or not at all: on any failure the old file stays and no other file is left."""

from __future__ import annotations

import fcntl
import os
import resource
import shutil
from pathlib import Path
from types import SimpleNamespace

import pytest

from engine.errors import CANNOT_WRITE, UserError
from engine.system import files


def test_content_and_mode(tmp_path: Path) -> None:
    path = tmp_path / "new" / "folder" / "a"
    files.write_text(path, "zwölf\n")
    assert path.read_bytes() == "zwölf\n".encode()
    before = os.umask(0o027)
    files.write_json(path, {"é": [1, None]})
    os.umask(before)
    assert path.read_text(encoding="utf-8") == '{\n  "é": [\n    1,\n    null\n  ]\n}\n'
    assert path.stat().st_mode & 0o777 == 0o640  # the user's mode, not a temporary file's
    assert os.listdir(path.parent) == ["a"]


@pytest.mark.parametrize("call", ["fsync", "chmod", "replace"])
def test_a_write_that_fails_leaves_the_old_file(call: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "a.pth"
    path.write_bytes(b"old")

    def fail(*_: object, **__: object) -> None:
        raise OSError(28, "No space left on device")

    def usage(folder: Path) -> SimpleNamespace:
        return SimpleNamespace(free=1000 - len(os.listdir(folder)))  # the space of our own file is free again

    monkeypatch.setattr(os, call, fail)
    monkeypatch.setattr(shutil, "disk_usage", usage)
    with pytest.raises(UserError, match=r"disk full: .* needs 3 bytes, 999 are free") as fault:
        files.write_bytes(path, b"new")
    monkeypatch.undo()
    assert fault.value.code == CANNOT_WRITE
    assert path.read_bytes() == b"old"
    assert os.listdir(tmp_path) == ["a.pth"]


def test_a_file_larger_than_the_system_allows_leaves_the_old_one(tmp_path: Path) -> None:
    path = tmp_path / "a.pth"
    path.write_bytes(b"old")
    limits = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (4096, limits[1]))  # a real failure in the middle
    try:
        with pytest.raises(UserError, match=r"^file too large: .*a\.pth needs 15,000 bytes, more than a file") as fault:
            files.write_bytes(path, b"new" * 5000)
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, limits)
    assert (fault.value.code, fault.value.hint) == (
        CANNOT_WRITE,
        "raise the limit (ulimit -f), or name a writable file",
    )
    assert path.read_bytes() == b"old"
    assert os.listdir(tmp_path) == ["a.pth"]


def test_places_that_cannot_be_written(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("in the way")
    for path in (tmp_path, tmp_path / "file" / "a.pth"):
        with pytest.raises(UserError) as fault:
            files.check_writable(path)
        assert fault.value.code == CANNOT_WRITE
    for length, fits in ((241, True), (242, False)):  # the temporary name adds 14 letters, and 255 are allowed
        if fits:
            files.check_writable(tmp_path / ("x" * length))
            files.write_bytes(tmp_path / ("x" * length), b"")
        else:
            with pytest.raises(UserError, match="too long"):
                files.check_writable(tmp_path / "new" / ("x" * length))
    files.check_writable(tmp_path / "new" / "a.pth")
    assert not (tmp_path / "new").exists()  # the folder is made when there is something to write


def test_what_a_living_process_writes_is_not_swept(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path, sync = tmp_path / "a.pth", os.fsync
    stale = tmp_path / ".a.pth.abcdefgh.tmp"
    stale.write_bytes(b"of a process that was killed")
    (tmp_path / ".a.pth.notes.tmp").write_bytes(b"of somebody else")

    def meanwhile(handle: int) -> None:
        files.sweep(path)
        sync(handle)

    monkeypatch.setattr(os, "fsync", meanwhile)
    files.write_bytes(path, b"new")
    assert sorted(os.listdir(tmp_path)) == [".a.pth.notes.tmp", "a.pth"]


def test_a_temporary_file_swept_before_it_is_locked_is_made_again(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path, lock, calls = tmp_path / "a.pth", fcntl.flock, []

    def late(handle: int, how: int) -> None:
        if not calls:
            calls.append(how)
            files.sweep(path)
        lock(handle, how)

    monkeypatch.setattr(fcntl, "flock", late)
    files.write_bytes(path, b"new")
    assert path.read_bytes() == b"new"
    assert os.listdir(tmp_path) == ["a.pth"]
