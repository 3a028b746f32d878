"""Whether a network of the user's answers as commands need it, and its faults in words.

Where its code is imported from: user_code.py.
"""

from __future__ import annotations

import importlib
import os
import traceback
from collections.abc import Iterator
from contextlib import contextmanager
from functools import cache
from pathlib import Path

import torch

from engine.errors import UserError, no_memory
from engine.system.said import notice
from model_compression import HOME, PACKAGES

SEE = "see docs/own-network.md"
_NOT_THEIRS = (
    "<frozen",
    *(str(Path(module.__file__ or "").parent) + os.sep for module in (torch, importlib)),
    *(str(HOME / package) + os.sep for package in PACKAGES),
)


class Misdeclared(UserError):
    """A network of the user's, or the module it is in, is not what the commands need: exit 2."""


def one_line(fault: BaseException) -> str:
    """A fault of the user's code in one line, with the file and line where that code stood."""
    if isinstance(fault, SyntaxError):
        place, text = f"{fault.filename}:{fault.lineno}: ", f"{type(fault).__name__}: {fault.msg}"
    else:
        frames = reversed(traceback.extract_tb(fault.__traceback__))
        place = next((f"{f.filename}:{f.lineno}: " for f in frames if not f.filename.startswith(_NOT_THEIRS)), "")
        text = str(fault).partition("\n")[0]
        if not isinstance(fault, ImportError):
            text = f"{type(fault).__name__}: {text}"
    return place.removeprefix(os.getcwd() + os.sep) + text


@contextmanager
def user_code(arch: str, hint: str) -> Iterator[None]:
    """Let what the user's code raises, a sys.exit() included, end a command in two lines. No memory left is nobody's fault."""
    try:
        yield
    except UserError:
        raise
    except (Exception, SystemExit) as fault:
        if no_memory(fault):
            raise
        raise Misdeclared(f"--arch {arch}: {one_line(fault)}", hint) from fault


def answer(shape: tuple[int | None, ...], arch: str, classes: int) -> None:
    """Whether a network answers with one number a class.

    Args:
        shape: of its answer, None where a size depends on the number of pictures.

    Raises:
        Misdeclared: exit 2.
    """
    if shape != (None, classes):
        found = ", ".join("B" if size is None else str(size) for size in shape)
        raise Misdeclared(
            f"--arch {arch}: forward gives ({found}) for B pictures and {classes} classes, not (B, {classes})",
            "the function has to use its classes, and the network to give one number a class",
        )


@cache
def say_undeclared(arch: str) -> None:
    """Tell, once, whoever wrote a network with declarations that nothing reads them any more."""
    notice(f"{arch} declares channel groups; they are not read: what goes together is found in its graph")
