"""The label file of a picture as YOLO users have them: a row for each object, its class and its box, or a polygon around it."""

from __future__ import annotations

import math
from dataclasses import dataclass, field
from pathlib import Path

from engine.data.detection.boxes import SLACK
from engine.errors import BAD_DATA, UserError

CORNERS = 4
"""Of a polygon, at least: fewer numbers are also what trackers and detectors write behind a box."""


@dataclass
class Found:
    """What the label files of a part say, row by row: the picture of each object, its class, its box and its line.

    `twice` counts rows that say what another one of their file says; `without` counts pictures that have no label file.
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
        number: that of its picture.
        classes: how many there are.

    Raises:
        UserError: exit 4, naming file and line.
    """
    try:
        lines = path.read_text(encoding="utf-8-sig").splitlines()
    except (OSError, UnicodeDecodeError) as fault:
        raise UserError(f"cannot read {path}: {fault}", "write it as text", BAD_DATA) from fault
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
    """A class and its box, x1, y1, x2, y2, in fractions of the picture's sides.

    Raises:
        UserError: exit 4, naming file and line.
    """
    try:
        kind, *values = map(float, words)
    except ValueError as fault:
        raise _wrong(where, f"{' '.join(words)[:60]!r} are not all numbers") from fault
    if not all(map(math.isfinite, (kind, *values))):
        raise _wrong(where, "a number is not finite")
    polygon = len(values) >= 2 * CORNERS and len(values) % 2 == 0
    if len(values) != 4 and not polygon:
        raise _wrong(where, f"it has {len(words)} numbers")
    if kind not in range(classes):
        text = f"{where}: {words[0]} is no class; {classes} are named, from 0 to {classes - 1}"
        raise UserError(text, "mend the row, or name the class", BAD_DATA)
    for value in values:
        if not -SLACK <= value <= 1 + SLACK:
            text = f"{where}: {value:g} is not between 0 and 1"
            hint = "rows are fractions of the picture's width and height" + (", not pixels" if abs(value) > 2 else "")
            raise UserError(text, hint, BAD_DATA)
    if polygon:
        return kind, min(values[::2]), min(values[1::2]), max(values[::2]), max(values[1::2])
    x, y, width, height = values
    return kind, x - width / 2, y - height / 2, x + width / 2, y + height / 2


def _wrong(where: str, what: str) -> UserError:
    hint = "a row is: class, then centre x, centre y, width and height, or the corners of a polygon, in fractions of the sides"
    return UserError(f"{where}: {what}", hint, BAD_DATA)
