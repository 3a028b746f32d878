"""The names that a folder gives to its classes and to itself, as they stand in files and tables."""

from __future__ import annotations

import unicodedata
from collections.abc import Sequence
from pathlib import Path

from engine.errors import BAD_DATA, UserError


def class_names(names: Sequence[str], where: Path) -> tuple[str, ...]:
    """Return the names of a folder's classes, if they are different, and lines of text.

    Raises:
        UserError: naming the first wrong one (exit 4).
    """
    first: dict[str, int] = {}
    for number, name in enumerate(names):
        if not name.strip():
            raise UserError(f"{where}: class {number} has no name", "give each class a name", BAD_DATA)
        if not is_line(name):
            what = "it holds a line break, a control character or bytes that are not UTF-8"
            raise UserError(f"{where}: the class name {name!r} is no line of text: {what}", "rename it", BAD_DATA)
        if first.setdefault(name, number) != number:
            text = f"{where}: classes {first[name]} and {number} have the same name, {name}"
            raise UserError(text, "give each class a name of its own", BAD_DATA)
    return tuple(names)


def is_line(name: str) -> bool:
    """Return whether a name has no line breaks, control characters and undecodable bytes, which ONNX files refuse."""
    return not any(unicodedata.category(c) in ("Cc", "Cs", "Zl", "Zp") for c in name)
