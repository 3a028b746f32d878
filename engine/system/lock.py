"""The lock of a folder: one process at a time, let go by the system however that process ends."""

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
from engine.system.files import warn_once

_held: weakref.WeakSet[TextIO] = weakref.WeakSet()


def _let_go() -> None:
    """A loader process may outlive its parent by seconds; the lock must not."""
    for file in list(_held):
        file.close()


os.register_at_fork(after_in_child=_let_go)


def locked(opened: Callable[[], TextIO], take: Callable[[TextIO], None]) -> TextIO:
    """Open a file and lock it; again, where its holder took it away before it let go of it.

    Args:
        take: locks an open file, or raises.
    """
    while True:
        file = opened()
        take(file)
        if os.fstat(file.fileno()).st_nlink:
            return file
        file.close()  # who comes now locks another file of that name


class Lock:
    """Taken when made; where the file system has no locks, with a warning instead.

    Raises:
        UserError: exit 7 naming process and host if another one has it, exit 6 if the file cannot be opened.
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
            warn_once(f"{self.path.parent} cannot be locked ({fault.strerror}): start no second run in it")

    def _holder(self) -> str:
        """Who has it; it may be about to write its name, where this process was as quick."""
        for _ in range(20):
            time.sleep(0.05)
            with contextlib.suppress(FileNotFoundError):  # gone meanwhile
                if name := self.path.read_text().strip():
                    return name
        return "another run"

    def release(self) -> None:
        """Let another process in."""
        if not self._file.closed:
            self.path.unlink(missing_ok=True)
            self._file.close()
