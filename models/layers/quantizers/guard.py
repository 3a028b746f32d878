"""Word the errors of a quantizer's file. traits.py reads the files, kinds.py imports them, made.py checks their modules."""

from __future__ import annotations

import inspect
import os
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from traceback import extract_tb
from typing import Any, TypeVar

from engine.errors import UserError, first_line, wording_errors

MEND = "mend the file, or take it out of its folder; --debug shows the traceback"
Result = TypeVar("Result")


def misdeclared(path: Path, what: str, hint: str = MEND, line: int | None = None) -> UserError:
    """Return the error for a faulty file of a quantizer (exit 2)."""
    place = str(path).removeprefix(os.getcwd() + os.sep)
    return UserError(f"{place}:{f'{line}:' if line else ''} {what}", hint)


@contextmanager
def guarded(path: Path, line: int | None = None) -> Iterator[None]:
    """Turn exceptions of a quantizer's file, also sys.exit(), into a UserError; running out of memory passes through.

    Args:
        line: the line to name if the exception comes from a call of the file, not from its code.
    """

    def worded(fault: BaseException) -> UserError:
        lines = [frame.lineno for frame in extract_tb(fault.__traceback__) if frame.filename == str(path)]
        return misdeclared(path, f"{type(fault).__name__}: {first_line(fault)}", line=lines[-1] if lines else line)

    with wording_errors(worded):
        yield


def called(function: Callable[..., Result], *args: Any) -> Result:
    """Call a function of a quantizer's registration.

    Raises:
        UserError: exit 2 for its exceptions.
    """
    code = getattr(function, "__code__", None)
    with guarded(file_of(function), code and code.co_firstlineno):
        return function(*args)


def file_of(thing: Any) -> Path:
    """Return the file of a function or a class."""
    try:
        return Path(inspect.getfile(thing))
    except (TypeError, OSError):  # neither, or one without a file
        return Path(repr(thing))
