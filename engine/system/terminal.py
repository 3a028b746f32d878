"""The three streams of a command where they are no terminal: closed pipes, missing streams, encodings of old locales."""

from __future__ import annotations

import contextlib
import io
import os
import re
import shutil
import sys
from collections.abc import Iterator
from typing import Any, TextIO


@contextlib.contextmanager
def prepared() -> Iterator[None]:
    """Streams that a command can rely on, as long as it runs.

    * stdout and stderr exist: a shell's `>&-` leaves None, which print() takes for stdout.
    * What an encoding lacks is written as `\\u6a21`, not refused.
    * stderr goes on as /dev/null when its reader has gone: progress that nobody reads must not end a training.
    """
    before = sys.stdout, sys.stderr
    with contextlib.ExitStack() as stack:
        out, err = (stream or stack.enter_context(open(os.devnull, "w")) for stream in before)
        for stream in (out, err):
            if isinstance(stream, io.TextIOWrapper):
                stream.reconfigure(errors="backslashreplace")
        sys.stdout, sys.stderr = out, _Progress(err)  # type: ignore[assignment]
        try:
            yield
        finally:
            sys.stdout, sys.stderr = before


class _Progress:
    """A text stream that drops what it cannot write."""

    def __init__(self, stream: TextIO) -> None:
        self._stream = stream

    def write(self, text: str) -> int:
        try:
            return self._stream.write(text)
        except OSError:  # closed, hung up, or a full disk
            to_null(self._stream)
            return len(text)

    def flush(self) -> None:
        try:
            self._stream.flush()
        except OSError:  # closed, hung up, or a full disk
            to_null(self._stream)

    def __getattr__(self, name: str) -> Any:
        return getattr(self._stream, name)


def to_null(stream: TextIO) -> None:
    """Let the stream's file descriptor lead to /dev/null, so that what is buffered can be flushed at the end."""
    null = os.open(os.devnull, os.O_WRONLY)
    os.dup2(null, stream.fileno())
    os.close(null)


def print_path(path: Any) -> None:
    """A path as the file system has it, whatever the stream's encoding: the next command of a pipeline reads it."""
    sys.stdout.flush()
    if isinstance(sys.stdout, io.TextIOWrapper):
        sys.stdout.buffer.write(os.fsencode(path) + b"\n")
    else:
        print(path)


def one_line(text: str) -> str:
    """Text for an error line: no line breaks, no colours of torch's, nothing else that a terminal would act on."""
    text = re.sub(r"\x1b\[[0-9;]*[A-Za-z]", "", text)
    return "".join(c if c.isprintable() else f"\\x{ord(c):02x}" for c in " ".join(text.split()))


def escape(text: str) -> str:
    """A command's result with what a terminal would act on spelt out: the words of a file may be anybody's."""
    return "".join(c if c.isprintable() or c in "\n\t" else f"\\x{ord(c):02x}" for c in text)


def is_interactive() -> bool:
    """Whether stderr is a terminal on which a progress bar can be redrawn."""
    return sys.stderr.isatty() and os.environ.get("TERM") != "dumb"


def width() -> int | None:
    """Columns of the terminal that stdout is; None for a file or a pipe."""
    return shutil.get_terminal_size().columns if sys.stdout.isatty() else None


def columns(rows: list[list[str]], left: int = 1) -> list[str]:
    """Lines of a terminal table as wide as its cells: the first `left` columns flush left, the others right."""
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    return [
        "  ".join(
            cell.ljust(w) if n < left else cell.rjust(w) for n, (cell, w) in enumerate(zip(row, widths, strict=True))
        )
        for row in rows
    ]
