"""Read a YOLO label file: a row for each object, with its class and its box or a polygon around it."""

from __future__ import annotations

import math
import re
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path

from engine.data.detection.boxes import SLACK
from engine.data.listing import check_regular
from engine.errors import BAD_DATA, UserError

COLUMNS = ("class", "centre x", "centre y", "width", "height")
"""What a row with a box holds."""
CORNERS = 4
"""The fewest corners of a polygon; rows with fewer numbers may be a box with a tracker's or detector's extra columns."""

NUMBER = re.compile(r"[+-]?(\d+\.?\d*|\.\d+)(e[+-]?\d+)?", re.ASCII | re.IGNORECASE)
"""A decimal number as other programs read it, too; Python's float also takes 0.4_2 and digits of other scripts."""


@dataclass
class Found:
    """The rows of a part's label files: each object's picture, class, box and line.

    `twice` counts the rows that repeat another row of their file; `without` counts the pictures without a label file.
    """

    owners: list[int] = field(default_factory=list)
    classes: list[int] = field(default_factory=list)
    boxes: list[tuple[float, ...]] = field(default_factory=list)
    lines: list[int] = field(default_factory=list)
    twice: int = 0
    without: int = 0


def read(path: Path, number: int, classes: int, found: Found) -> None:
    """Add the rows of a label file.

    Args:
        number: the number of its picture.
        classes: number of classes.

    Raises:
        UserError: naming file and line (exit 4).
    """
    check_regular(path)
    try:
        lines = path.read_text(encoding="utf-8-sig").splitlines()
    except (OSError, UnicodeDecodeError) as fault:
        raise UserError(
            f"cannot read {path}: {fault}", "check its permissions, or write it as UTF-8 text", BAD_DATA
        ) from fault
    seen = set()
    for line, words in enumerate(map(str.split, lines), 1):
        if not words:
            continue
        row = _row(f"{path}, line {line}", words, classes)
        if row in seen:
            found.twice += 1
            continue
        seen.add(row)
        found.owners.append(number)
        found.classes.append(int(row[0]))
        found.boxes.append(row[1:])
        found.lines.append(line)


def _row(where: str, words: list[str], classes: int) -> tuple[float, ...]:
    """Return a row's class and its box, x1, y1, x2, y2, in fractions of the picture's sides.

    Raises:
        UserError: naming file, line and column (exit 4).
    """

    def column(number: int) -> str:
        return f"{where}, column {number}{_meaning(number, len(words))}"

    kind, *values = (_number(word, column, number) for number, word in enumerate(words, 1))
    polygon = len(values) >= 2 * CORNERS and len(values) % 2 == 0
    if len(values) != 4 and not polygon:
        raise _wrong(where, f"it has {len(words)} numbers")
    if kind not in range(classes):
        text = f"{where}: {words[0]} is not a class; {classes} are named, 0 to {classes - 1}"
        raise UserError(text, "correct the row, or name the class", BAD_DATA)
    for number, value in enumerate(values, 2):
        if not -SLACK <= value <= 1 + SLACK:
            text = f"{column(number)}: {value:g} is not between 0 and 1"
            hint = "rows are fractions of the picture's width and height" + (", not pixels" if abs(value) > 2 else "")
            raise UserError(text, hint, BAD_DATA)
    if polygon:
        return kind, min(values[::2]), min(values[1::2]), max(values[::2]), max(values[1::2])
    x, y, width, height = values
    return kind, x - width / 2, y - height / 2, x + width / 2, y + height / 2


def _number(word: str, column: Callable[[int], str], number: int) -> float:
    try:
        value = float(word)
    except ValueError as fault:
        raise _wrong(column(number), f"{word[:60]!r} is not a number") from fault
    if not math.isfinite(value):
        raise _wrong(column(number), f"{word[:60]} is not finite")
    if not NUMBER.fullmatch(word):
        raise _wrong(column(number), f"{word[:60]!r} is not a number")
    return value


def _meaning(number: int, count: int) -> str:
    """Return what a column of a row of `count` columns holds: ` (width)`; nothing for a row of no known form."""
    if count == len(COLUMNS):
        return f" ({COLUMNS[number - 1]})"
    if count > 2 * CORNERS and count % 2:
        return " (class)" if number == 1 else f" ({'xy'[number % 2]})"
    return ""


def _wrong(where: str, what: str) -> UserError:
    hint = "write class, then centre x, centre y, width and height, or a polygon's corners, in fractions of the sides"
    return UserError(f"{where}: {what}", hint, BAD_DATA)
