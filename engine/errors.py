"""The exception for errors that a user can fix, and the exit codes of every command."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

OK = 0
BUG = 1
USAGE = 2
BAD_CHECKPOINT = 3
BAD_DATA = 4
DIVERGED = 5
CANNOT_WRITE = 6
LOCKED = 7
LOST = 8
INTERRUPTED = 130
TERMINATED = 143
PIPE_CLOSED = 141


class UserError(Exception):
    """An error that the user can fix: it ends a command with one `error:` and one `hint:` line, without a traceback.

    Args:
        message: what went wrong, with the path or value concerned.
        hint: what to do about it.
        code: the command's exit status, one of the constants of this module.
    """

    def __init__(self, message: str, hint: str, code: int = USAGE) -> None:
        super().__init__(message)
        self.hint = hint
        self.code = code


@contextmanager
def prefix_path(path: Path | None) -> Iterator[None]:
    """Prefix errors raised inside with the file's path."""
    try:
        yield
    except UserError as fault:
        if path is None or str(path) in str(fault):
            raise
        raise UserError(f"{path}: {fault}", fault.hint, fault.code) from fault


@contextmanager
def wording_errors(worded: Callable[[BaseException], UserError]) -> Iterator[None]:
    """Turn exceptions of a user's code, also sys.exit(), into a UserError; a UserError and lack of memory pass through.

    Args:
        worded: returns the error for an exception.
    """
    try:
        yield
    except UserError:
        raise
    except (Exception, SystemExit) as fault:
        if no_memory(fault):
            raise
        raise worded(fault) from fault


def no_memory(fault: BaseException) -> bool:
    """Return whether an exception means that memory ran out; torch says so only in its message."""
    return isinstance(fault, MemoryError) or any(w in str(fault).lower() for w in ("out of memory", "allocate memory"))


def first_line(fault: BaseException) -> str:
    """Return the first line of an exception's message, or its type if the message is empty."""
    return (str(fault).splitlines() or [type(fault).__name__])[0]
