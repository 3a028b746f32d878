"""The lock of a folder, held by one process at a time; the system releases it however that process ends."""

from __future__ import annotations

import contextlib
import fcntl
import os
import socket
import time
import weakref
from collections.abc import Callable
from pathlib import Path
from typing import TextIO

from engine.errors import CANNOT_WRITE, LOCKED, UserError
from engine.system.messages import warn_once

_held: weakref.WeakSet[TextIO] = weakref.WeakSet()


def _let_go() -> None:
    """Close the locks in a child: a loader process may outlive its parent by seconds, and must not hold its lock."""
    for file in list(_held):
        file.close()


os.register_at_fork(after_in_child=_let_go)


def locked(opened: Callable[[], TextIO], take: Callable[[TextIO], None]) -> TextIO:
    """Open and lock a file, and retry if its previous holder removed it before releasing the lock.

    Args:
        opened: opens the file.
        take: locks an open file, or raises.
    """
    while True:
        file = opened()
        take(file)
        if os.fstat(file.fileno()).st_nlink:
            return file
        file.close()  # the file was removed: later processes lock a new one of that name


class Lock:
    """A folder's lock, taken when the object is made; a file system without locks causes a warning.

    Raises:
        UserError: naming the process and host that hold it (exit 7); if the file cannot be opened (exit 6).
    """

    def __init__(self, folder: Path) -> None:
        self.path = folder / ".lock"
        try:
            self._file = locked(lambda: self.path.open("a+"), self._take)
            self._file.truncate(0)
            self._file.write(f"process {os.getpid()} on {socket.gethostname()}\n")
            self._file.flush()
        except OSError as fault:
            raise UserError(
                f"cannot write {self.path}: {fault.strerror}", "name another folder with --run_dir", CANNOT_WRITE
            ) from fault
        _held.add(self._file)

    def _take(self, file: TextIO) -> None:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError as fault:
            raise UserError(
                f"{self.path.parent} is in use by {self._holder()}",
                "wait for it, or name another folder with --run_dir",
                LOCKED,
            ) from fault
        except OSError as fault:
            warn_once(f"{self.path.parent} cannot be locked ({fault.strerror}): do not start a second run in it")

    def _holder(self) -> str:
        """Return the lock's holder; retry for a second, as it may not have written its name yet."""
        for _ in range(20):
            time.sleep(0.05)
            with contextlib.suppress(FileNotFoundError):  # removed meanwhile
                if name := self.path.read_text().strip():
                    return name
        return "another run"

    def release(self) -> None:
        """Release the lock for another process."""
        if not self._file.closed:
            self.path.unlink(missing_ok=True)
            self._file.close()
