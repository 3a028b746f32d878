"""Files that are whole or absent: every write goes to a sibling file first, which is then renamed.

What a file means is not known here; see checkpoint.py for that.
"""

from __future__ import annotations

import errno
import json
import os
import shutil
import tempfile
from pathlib import Path
from typing import Any

from engine.errors import CANNOT_WRITE, UserError


def check_writable(path: Path) -> None:
    """Find out before hours of work whether `path` can be written; nothing is left behind.

    Raises:
        UserError: exit 6 if the folder cannot be made or written, or `path` is a folder.
    """
    try:
        if path.exists() and not path.is_file():
            raise UserError(f"cannot write {path}: it is no regular file", "name a file with --save", CANNOT_WRITE)
        folder = path.resolve().parent
        while not folder.exists() and folder != folder.parent:
            folder = folder.parent  # the missing ones are made when there is something to put there
        handle, name = tempfile.mkstemp(prefix=f".{path.name}.", suffix=".tmp", dir=folder)
        os.close(handle)
        os.unlink(name)
    except OSError as fault:
        raise _cannot_write(path, 0, fault) from fault


def write_bytes(path: Path, content: bytes) -> None:
    """Replace `path` by `content`: after a crash it holds the old bytes or the new ones, never a part.

    Raises:
        UserError: exit 6, the old file untouched and the temporary file removed.
    """
    temporary = None
    try:
        path = path.resolve()  # a link stays, what it points to is replaced
        path.parent.mkdir(parents=True, exist_ok=True)
        handle, temporary = tempfile.mkstemp(prefix=f".{path.name}.", suffix=".tmp", dir=path.parent)
        with os.fdopen(handle, "wb") as file:
            file.write(content)
            file.flush()
            os.fsync(file.fileno())
        os.chmod(temporary, 0o666 & ~_umask())  # mkstemp makes private files
        os.replace(temporary, path)
        _sync_folder(path.parent)
    except OSError as fault:
        if temporary and os.path.exists(temporary):
            os.unlink(temporary)
        raise _cannot_write(path, len(content), fault) from fault


def write_text(path: Path, text: str) -> None:
    write_bytes(path, text.encode("utf-8"))


def write_json(path: Path, value: Any) -> None:
    write_text(path, json.dumps(value, indent=2, ensure_ascii=False) + "\n")


def _umask() -> int:
    current = os.umask(0)
    os.umask(current)
    return current


def _sync_folder(folder: Path) -> None:
    """Make the rename itself durable; file systems that cannot sync a folder are left at their own promise."""
    handle = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(handle)
    except OSError as fault:
        if fault.errno not in (errno.EINVAL, errno.ENOTSUP):
            raise
    finally:
        os.close(handle)


def _cannot_write(path: Path, size: int, fault: OSError) -> UserError:
    if fault.errno in (errno.ENOSPC, errno.EFBIG, errno.EDQUOT):
        free = shutil.disk_usage(path.parent).free if path.parent.is_dir() else 0
        return UserError(
            f"disk full: {path} needs {size:,} bytes, {free:,} are free ({fault.strerror})",
            "free some space or name another place with --save",
            CANNOT_WRITE,
        )
    return UserError(
        f"cannot write {path}: {fault.strerror or fault}",
        "name a writable file with --save",
        CANNOT_WRITE,
    )
