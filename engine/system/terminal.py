"""Make the standard streams robust: closed pipes, missing streams, encodings of old locales, text for terminals."""

from __future__ import annotations

import contextlib
import io
import os
import re
import shutil
import sys
from collections.abc import Callable, Iterator
from typing import Any, NoReturn, TextIO

from engine.errors import CANNOT_WRITE, UserError


@contextlib.contextmanager
def prepared() -> Iterator[None]:
    """Give a command reliable streams while it runs.

    * stdout and stderr exist: after a shell's `>&-` they are None, and print() treats None as stdout.
    * Characters that the encoding lacks are written as `\\u6a21` instead of raising an error.
    * stderr becomes /dev/null when its reader has gone, as unread progress must not end a training.
    * A result that stdout does not take ends the command, unlike progress: a BrokenPipeError if the reader has gone,
      else a UserError (exit 6).
    """
    before = sys.stdout, sys.stderr
    with contextlib.ExitStack() as stack:
        out, err = (stream or stack.enter_context(open(os.devnull, "w")) for stream in before)
        for stream in (out, err):
            if isinstance(stream, io.TextIOWrapper):
                stream.reconfigure(errors="backslashreplace")
        sys.stdout, sys.stderr = _Guarded(out, _refused), _Guarded(err, lambda _: None)  # type: ignore[assignment]
        try:
            yield
        finally:
            sys.stdout, sys.stderr = before


@contextlib.contextmanager
def stdout_to_stderr() -> Iterator[None]:
    """Redirect stdout to stderr, also for code that writes to file descriptor 1 directly: stdout is for results."""
    sys.stdout.flush()
    kept = os.dup(1)
    try:
        os.dup2(2, 1)
        yield
    finally:
        sys.stdout.flush()  # what print() still holds
        os.dup2(kept, 1)
        os.close(kept)


class _Guarded:
    """A text stream that drops text it cannot write, and hands the fault to a function, which may raise."""

    def __init__(self, stream: TextIO, lost: Callable[[OSError], None]) -> None:
        self._stream, self._lost = stream, lost

    def write(self, text: str) -> int:
        try:
            return self._stream.write(text)
        except OSError as fault:  # closed, hung up, or a full disk
            self._drop(fault)
            return len(text)

    def flush(self) -> None:
        try:
            self._stream.flush()
        except OSError as fault:  # closed, hung up, or a full disk
            self._drop(fault)

    def _drop(self, fault: OSError) -> None:
        to_null(self._stream)
        self._lost(fault)

    def __getattr__(self, name: str) -> Any:
        return getattr(self._stream, name)


def _refused(fault: OSError) -> NoReturn:
    if isinstance(fault, BrokenPipeError):
        raise fault
    raise UserError(
        f"cannot write to stdout: {fault.strerror or fault}",
        "free some space, or send the output to another place",
        CANNOT_WRITE,
    ) from fault


def to_null(stream: TextIO) -> None:
    """Point the stream's file descriptor to /dev/null, so that buffered text can be flushed at the end."""
    null = os.open(os.devnull, os.O_WRONLY)
    os.dup2(null, stream.fileno())
    os.close(null)


def print_path(path: Any) -> None:
    """Print a path in the file system's bytes, whatever the stream's encoding, for the next command of a pipeline."""
    sys.stdout.flush()
    if hasattr(sys.stdout, "buffer"):
        sys.stdout.buffer.write(os.fsencode(path) + b"\n")
    else:
        print(path)


def one_line(text: str) -> str:
    """Return text for an error line, without line breaks, torch's colours or other control characters."""
    text = re.sub(r"\x1b\[[0-9;]*[A-Za-z]", "", text)
    return "".join(c if c.isprintable() else f"\\x{ord(c):02x}" for c in " ".join(text.split()))


def complain(what: str, hint: str, stream: TextIO | None = None) -> None:
    """Print an error and its hint, one line each, on stderr or another stream."""
    print(f"error: {one_line(what)}\nhint: {one_line(hint)}", file=stream or sys.stderr)


def escape(text: str) -> str:
    """Return a command's result with control characters escaped, as text from a file cannot be trusted."""
    return "".join(c if c.isprintable() or c in "\n\t" else f"\\x{ord(c):02x}" for c in text)


def is_interactive() -> bool:
    """Return whether stderr is a terminal on which a progress bar can be redrawn."""
    return sys.stderr.isatty() and os.environ.get("TERM") != "dumb"


def width() -> int | None:
    """Return the width of stdout's terminal in columns; None for a file or a pipe."""
    return shutil.get_terminal_size().columns if sys.stdout.isatty() else None


def columns(rows: list[list[str]], left: int = 1) -> list[str]:
    """Return the lines of a table: the first `left` columns are flush left, the others flush right."""
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    return [
        "  ".join(
            cell.ljust(w) if n < left else cell.rjust(w) for n, (cell, w) in enumerate(zip(row, widths, strict=True))
        )
        for row in rows
    ]
