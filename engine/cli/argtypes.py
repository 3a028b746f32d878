"""The argparse types of flags, which refuse impossible values with a hint.

A type raises ArgumentTypeError with two lines: what is wrong, and what to do. flags.py splits them. Values are shown by
repr, which escapes line breaks.
"""

from __future__ import annotations

import argparse
import difflib
import errno
import math
import os
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from engine.cli.archs import ARCHS, LIBRARIES


def nearest(text: str, known: Sequence[str], cutoff: float = 0.6) -> str:
    """Return the hint for a misspelt word, empty if no known word is similar; `cutoff` is difflib's."""
    close = difflib.get_close_matches(text, known, n=1, cutoff=cutoff)
    return f"did you mean {close[0]}?" if close else ""


def number(
    kind: type, low: float, high: float = math.inf, open_low: bool = False, hint: str = ""
) -> Callable[[str], Any]:
    """Return an argparse type: a finite `kind` in [low, high], or in (low, high] with `open_low`."""

    def parse(text: str) -> Any:
        try:
            value = kind(text) if "_" not in text else None  # int("1_6") is 16 in Python
        except ValueError:
            value = None
        # also refuses nan and inf; isfinite may overflow
        if value is None or not low <= value <= high or value == math.inf or (open_low and value == low):
            name = "an integer" if kind is int else "a number"
            span = f"{'above' if open_low else 'of at least'} {_shown(low)}"
            span += f" and at most {_shown(high)}" if high < math.inf else ""
            raise argparse.ArgumentTypeError(f"{text!r} is not {name} {span}" + (f"\n{hint}" if hint else ""))
        return value

    return parse


def _shown(value: float) -> str:
    return f"{value:,}" if isinstance(value, int) else f"{value:g}"


PACKED = (".safetensors", ".onnx")
"""Endings of files that deploy.pack and deploy.onnx write."""


def path(text: str) -> Path:
    """Read a path, an argparse type; `~/` is the home folder. A path with a line break, or of a link in a circle, is refused.

    An empty path usually comes from a shell variable that a failed command left unset.
    """
    if not text:
        raise argparse.ArgumentTypeError("'' is not a path\ndid an earlier command of the pipeline fail?")
    if text.splitlines() != [text]:
        raise argparse.ArgumentTypeError(f"{text!r} holds a line break\nrename it: paths are passed on as lines")
    found = Path(text).expanduser() if text == "~" or text.startswith("~/") else Path(text)
    try:
        os.stat(found)
    except OSError as fault:
        if fault.errno == errno.ELOOP:  # Path.resolve raises a RuntimeError
            raise argparse.ArgumentTypeError(
                f"{text!r} is a link that leads to itself\nremove it, or name another path"
            ) from fault
    return found


def output(text: str) -> Path:
    """Read the path of a file to write, an argparse type. Python code is not replaced, such as that of `--arch net.py:net`."""
    found = path(text)
    if found.suffix == ".py":
        raise argparse.ArgumentTypeError(f"{text!r} is a file of Python code\nname another file")
    if text.endswith(os.sep):
        raise argparse.ArgumentTypeError(f"{text!r} is a folder\nname a file in it")
    return found


def checkpoint(text: str) -> Path:
    """Read the path of a checkpoint to write, an argparse type. Commands would take files with these endings for packed ones."""
    found = output(text)
    if found.suffix in PACKED:
        raise argparse.ArgumentTypeError(
            f"{text!r} is the name of a packed file\nname the checkpoint {found.with_suffix('.pth')}"
        )
    return found


def written(*suffixes: str, hint: str = "") -> Callable[[str], Path]:
    """Return an argparse type: the path of a file to write, which ends in one of `suffixes`.

    Another ending is most likely a file that it would replace, such as a checkpoint.
    """

    def parse(text: str) -> Path:
        found = path(text)
        if found.suffix.lower() not in suffixes:
            told = hint or f"name the file F{suffixes[0]}"
            raise argparse.ArgumentTypeError(f"{text!r} does not end in {suffixes[0]}\n{told}")
        return found

    return parse


page = written(".html", ".htm", hint="name the page F.html, or write --html last")
"""The argparse type of a web page's path."""
markdown = written(".md", ".markdown", ".txt")
"""The argparse type of a Markdown file's path."""


def state(text: str) -> Path | str:
    """Read the path of a run's state, an argparse type; `auto` means the state in the run folder."""
    return text if text == "auto" else path(text)


def widths(text: str) -> list[int]:
    """Read the channels of each layer, an argparse type: `192,160,96`. Spaces, brackets and pools ('A') are skipped."""
    items = [t.strip(" '\"") for t in text.strip(" []()").split(",")]
    items = [t for t in items if t and t != "A"]
    if not items or not all(t.isdecimal() and 0 < int(t) <= 65536 for t in items):
        raise argparse.ArgumentTypeError(
            f"{text!r} is not a list of channel counts\ne.g. --cfg 192,160,96,192,192,192,192,192, the widths of nin"
        )
    return [int(t) for t in items]


def channels(example: str, open_low: bool = False) -> Callable[[str], tuple[float, ...]]:
    """Return an argparse type: `R,G,B`, or one number for grey, in [0, 1] (`open_low`: in (0, 1])."""
    one = number(float, 0, 1, open_low)

    def parse(text: str) -> tuple[float, ...]:
        items = text.split(",")
        try:
            values = tuple(one(item.strip()) for item in items)
        except argparse.ArgumentTypeError:
            values = ()
        if len(values) not in (1, 3):
            span = "above 0 and at most 1" if open_low else "in [0, 1]"
            raise argparse.ArgumentTypeError(
                f"{text!r} is not three numbers {span}\none for each channel of pixels from 0 to 1, e.g. {example}; "
                "a single one for a network that reads grey pictures"
            )
        return values

    return parse


def original(text: str) -> str:
    """Return `original` for its other name `seed`, and other words unchanged; an argparse type."""
    return "original" if text == "seed" else text


def arch(text: str) -> str:
    """Read a network, an argparse type: one of ARCHS, `torchvision:NAME`, `timm:NAME`, `package.module:function` or
    `file.py:function`.

    A file's path is made relative to the working folder, so that it has one name: `./net.py:Net` is `net.py:Net`.
    """
    place, colon, function = text.rpartition(":")
    if place.endswith(".py") and function:
        return f"{Path(os.path.relpath(path(place))).as_posix()}:{function}"
    if text in ARCHS or (place and function):
        return text
    own = "package.module:function, or file.py:function"
    if colon or text.endswith(".py"):
        raise argparse.ArgumentTypeError(f"{text!r} names no {'function' if place or not colon else 'module'}\n{own}")
    others = ", ".join(f"{name}:NAME" for name in LIBRARIES)
    hint = nearest(text, ARCHS) or f"one of {', '.join(ARCHS)}, {others}, {own}"
    raise argparse.ArgumentTypeError(f"unknown network {text!r}\n{hint}")
