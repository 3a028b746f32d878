"""Write files atomically: every write goes to a sibling file, which is then renamed.

engine/checkpoint defines the content of checkpoints.
"""

from __future__ import annotations

import contextlib
import errno
import fcntl
import hashlib
import json
import os
import re
import shutil
import tempfile
from pathlib import Path
from typing import Any

from engine.errors import CANNOT_WRITE, UserError
from engine.system.messages import warn_once

OTHER_FILE = "name a writable file"
OTHER_SAVE = f"{OTHER_FILE} with --save"
OTHER_PAGE = f"{OTHER_FILE}: --html F.html"
"""The hints of commands with these flags."""


def check_writable(path: Path, remedy: str = OTHER_FILE) -> None:
    """Check before hours of work that `path` can be written, and remove the remains of killed processes' writes.

    Args:
        remedy: the hint of the error.

    Raises:
        UserError: if the folder cannot be made or written, or `path` is not a regular file (exit 6).
    """
    try:
        if path.exists() and not path.is_file():
            raise UserError(f"cannot write {path}: it is not a regular file", remedy, CANNOT_WRITE)
        target = path.resolve()
        folder = target.parent
        while not folder.exists() and folder != folder.parent:
            folder = folder.parent  # missing folders are made when the file is written
        with contextlib.suppress(FileNotFoundError):
            os.stat(folder / f".{target.name}.12345678.tmp")  # a name that is too long fails here, not at the end
        with tempfile.TemporaryFile(dir=folder):
            pass  # an unnamed file if the system allows it: even kill -9 leaves nothing
        sweep(target)
    except OSError as fault:
        raise _cannot_write(path, 0, fault, remedy) from fault


def write_bytes(path: Path, content: bytes, previous: Path | None = None, remedy: str = OTHER_FILE) -> None:
    """Replace the content of `path`; after a crash it holds the old bytes or the new ones, never a mixture.

    Args:
        previous: keep the old file under this name.
        remedy: the hint of the error.

    Raises:
        UserError: if it cannot be written (exit 6); the old file stays and the temporary file is removed.
    """
    handle = temporary = None
    try:
        target = path.resolve()  # a link stays; its target is replaced
        target.parent.mkdir(parents=True, exist_ok=True)
        handle, temporary = _temporary(target)
        left = memoryview(content)
        while left:  # os.write may write only a part
            left = left[os.write(handle, left) :]
        os.fsync(handle)
        os.chmod(temporary, 0o666 & ~_umask())  # mkstemp makes files that only the user can read
        if previous and target.exists():
            _keep(target, previous)
        os.replace(temporary, target)
        temporary = None
        _sync_folder(target.parent)
    except OSError as fault:
        _discard(handle, temporary)  # so that the free space in the error is right
        handle = temporary = None
        raise _cannot_write(path, len(content), fault, remedy) from fault
    finally:  # also after Ctrl-C
        _discard(handle, temporary)


def write_text(path: Path, text: str, remedy: str = OTHER_FILE) -> None:
    write_bytes(path, text.encode("utf-8", "backslashreplace"), remedy=remedy)  # file names may be no valid Unicode


def write_json(path: Path, value: Any, remedy: str = OTHER_FILE) -> None:
    write_text(path, json.dumps(value, indent=2, ensure_ascii=False) + "\n", remedy)


def sweep(path: Path) -> None:
    """Remove the temporary files of killed writes of `path`; those of running processes are locked and stay."""
    ours = re.compile(re.escape(f".{path.name}.") + r"\w{8}\.tmp")
    for entry in path.parent.iterdir() if path.parent.is_dir() else ():
        if ours.fullmatch(entry.name):
            with contextlib.suppress(OSError), entry.open("rb") as file:
                fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
                entry.unlink()


def _temporary(path: Path) -> tuple[int, str]:
    """Create a temporary sibling of `path`, locked until this process ends so that `sweep` leaves it alone."""
    while True:
        handle, name = tempfile.mkstemp(prefix=f".{path.name}.", suffix=".tmp", dir=path.parent)
        with contextlib.suppress(OSError):
            fcntl.flock(handle, fcntl.LOCK_EX)
        if os.fstat(handle).st_nlink:
            return handle, name
        os.close(handle)  # another process swept it before it was locked


def _discard(handle: int | None, temporary: str | None) -> None:
    if temporary:
        Path(temporary).unlink(missing_ok=True)
    if handle is not None:
        os.close(handle)


def _keep(path: Path, previous: Path) -> None:
    """Give the old file a second name; on a file system without hard links, it is renamed instead."""
    previous.unlink(missing_ok=True)
    try:
        os.link(path, previous)
    except OSError:
        os.replace(path, previous)


def _umask() -> int:
    current = os.umask(0)
    os.umask(current)
    return current


def _sync_folder(folder: Path) -> None:
    """Make the rename itself durable, if the file system can."""
    try:
        handle = os.open(folder, os.O_RDONLY)
        try:
            os.fsync(handle)
        finally:
            os.close(handle)
    except OSError as fault:
        if fault.errno in (errno.EIO, errno.ENOSPC, errno.EDQUOT):
            raise
        warn_once(f"folders cannot be synced here ({fault.strerror}): a power cut may lose the newest file")


def _cannot_write(path: Path, size: int, fault: OSError, remedy: str) -> UserError:
    if fault.errno in (errno.ENOSPC, errno.EDQUOT):
        free = shutil.disk_usage(path.parent).free if path.parent.is_dir() else 0
        return UserError(
            f"disk full: {path} needs {size:,} bytes, {free:,} are free ({fault.strerror})",
            f"free some space, or {remedy}",
            CANNOT_WRITE,
        )
    if fault.errno == errno.EFBIG:
        return UserError(
            f"file too large: {path} needs {size:,} bytes, more than a file may have here",
            f"raise the limit (ulimit -f), or {remedy}",
            CANNOT_WRITE,
        )
    return UserError(f"cannot write {path}: {fault.strerror or fault}", remedy, CANNOT_WRITE)


def sha256(path: Path) -> str:
    return hashlib.sha256(path.read_bytes()).hexdigest()
