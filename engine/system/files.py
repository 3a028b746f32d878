"""Files that are whole or absent: every write goes to a sibling file first, which is then renamed.

What a file means is not known here; see engine/checkpoint for that.
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
import sys
import tempfile
from functools import cache
from pathlib import Path
from typing import Any

from engine.errors import CANNOT_WRITE, UserError

OTHER_SAVE = "name a writable file with --save"


def check_writable(path: Path, remedy: str = OTHER_SAVE) -> None:
    """Find out before hours of work whether `path` can be written; what killed processes left of it is removed.

    Args:
        remedy: what the hint of the error says.

    Raises:
        UserError: exit 6 if the folder cannot be made or written, or `path` is no regular file.
    """
    try:
        if path.exists() and not path.is_file():
            raise UserError(f"cannot write {path}: it is no regular file", remedy, CANNOT_WRITE)
        target = path.resolve()
        folder = target.parent
        while not folder.exists() and folder != folder.parent:
            folder = folder.parent  # the missing ones are made when there is something to put there
        with contextlib.suppress(FileNotFoundError):
            os.stat(folder / f".{target.name}.12345678.tmp")  # too long a name would be found out at the end
        with tempfile.TemporaryFile(dir=folder):
            pass  # it has no name, where the system can do that: nothing is left even by kill -9
        sweep(target)
    except OSError as fault:
        raise _cannot_write(path, 0, fault, remedy) from fault


def write_bytes(path: Path, content: bytes, previous: Path | None = None, remedy: str = OTHER_SAVE) -> None:
    """Replace `path` by `content`: after a crash it holds the old bytes or the new ones, never a part.

    Args:
        previous: keep the old file under this name.
        remedy: what the hint of the error says.

    Raises:
        UserError: exit 6, the old file untouched and the temporary file removed.
    """
    handle = temporary = None
    try:
        target = path.resolve()  # a link stays, what it points to is replaced
        target.parent.mkdir(parents=True, exist_ok=True)
        handle, temporary = _temporary(target)
        left = memoryview(content)
        while left:  # the system may take a part only
            left = left[os.write(handle, left) :]
        os.fsync(handle)
        os.chmod(temporary, 0o666 & ~_umask())  # mkstemp makes private files
        if previous and target.exists():
            _keep(target, previous)
        os.replace(temporary, target)
        temporary = None
        _sync_folder(target.parent)
    except OSError as fault:
        _discard(handle, temporary)  # before the free space is measured
        handle = temporary = None
        raise _cannot_write(path, len(content), fault, remedy) from fault
    finally:  # also where the user is impatient
        _discard(handle, temporary)


def write_text(path: Path, text: str, remedy: str = OTHER_SAVE) -> None:
    write_bytes(path, text.encode("utf-8", "backslashreplace"), remedy=remedy)  # names of files may be no text


def write_json(path: Path, value: Any, remedy: str = OTHER_SAVE) -> None:
    write_text(path, json.dumps(value, indent=2, ensure_ascii=False) + "\n", remedy)


def sweep(path: Path) -> None:
    """Remove what killed processes left of their writes of `path`; what a living one is writing is locked."""
    ours = re.compile(re.escape(f".{path.name}.") + r"\w{8}\.tmp")
    for entry in path.parent.iterdir() if path.parent.is_dir() else ():
        if ours.fullmatch(entry.name):
            with contextlib.suppress(OSError), entry.open("rb") as file:
                fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
                entry.unlink()


@cache
def warn_once(text: str) -> None:
    """What a file system cannot do is said once, not with every file."""
    print(f"warning: {text}", file=sys.stderr)


def _temporary(path: Path) -> tuple[int, str]:
    """A sibling of `path`, open and locked as long as this process lives, so that nobody sweeps it."""
    while True:
        handle, name = tempfile.mkstemp(prefix=f".{path.name}.", suffix=".tmp", dir=path.parent)
        with contextlib.suppress(OSError):
            fcntl.flock(handle, fcntl.LOCK_EX)
        if os.fstat(handle).st_nlink:
            return handle, name
        os.close(handle)  # swept before it was locked


def _discard(handle: int | None, temporary: str | None) -> None:
    if temporary:
        Path(temporary).unlink(missing_ok=True)
    if handle is not None:
        os.close(handle)


def _keep(path: Path, previous: Path) -> None:
    """Give the old file a second name; where there are no links, that is its only one until the new file is there."""
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
    """Make the rename itself durable, where the file system can."""
    try:
        handle = os.open(folder, os.O_RDONLY)
        try:
            os.fsync(handle)
        finally:
            os.close(handle)
    except OSError as fault:
        if fault.errno in (errno.EIO, errno.ENOSPC, errno.EDQUOT):
            raise
        warn_once(f"folders cannot be synced here ({fault.strerror}): a power cut may take the newest file")


def _cannot_write(path: Path, size: int, fault: OSError, remedy: str) -> UserError:
    if fault.errno in (errno.ENOSPC, errno.EFBIG, errno.EDQUOT):
        free = shutil.disk_usage(path.parent).free if path.parent.is_dir() else 0
        return UserError(
            f"disk full: {path} needs {size:,} bytes, {free:,} are free ({fault.strerror})",
            f"free some space, or {remedy}",
            CANNOT_WRITE,
        )
    return UserError(f"cannot write {path}: {fault.strerror or fault}", remedy, CANNOT_WRITE)


def sha256(path: Path) -> str:
    return hashlib.sha256(path.read_bytes()).hexdigest()
