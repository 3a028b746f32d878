"""Boxes as people annotate them: cut to their pictures where they reach out by rounding, refused where they are wrong."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np

from engine.errors import BAD_DATA, UserError
from engine.system.said import notice, some

SLACK = 0.01
"""How far a box may reach out of its picture, as a fraction of its side."""
NOISE = 1e-4
"""Boxes that reach out by less are cut without a notice: annotations are rounded."""
FLAT = 10_000
"""Boxes among which one may have no width or no height, and is left out. Training pictures of COCO have 2 of 860,001."""


@dataclass(frozen=True)
class Rows:
    """Boxes of a part as they were read, before they are checked.

    Args:
        boxes: float64, (M, 4): x1, y1, x2, y2, in any unit.
        sides: float64, (M, 2): width and height of each one's picture, in that unit.
        slack: float64, (M, 2): how far each may reach out of it.
        named: what a row is called where it is wrong: its file, and where it stands there.
        unit: that of boxes and sides, in words.
    """

    boxes: np.ndarray
    sides: np.ndarray
    slack: np.ndarray
    named: Callable[[int], str]
    unit: str


def checked(rows: Rows, where: str) -> tuple[np.ndarray, np.ndarray]:
    """Boxes cut to their pictures, (K, 4), and which rows they were, (K,): all, but for flat ones where these are few.

    Args:
        where: what notices say of the part, a path.

    Raises:
        UserError: exit 4, naming the first box that lies outside its picture, or has no width or height.
    """
    if not len(rows.boxes):
        return np.zeros((0, 4)), np.zeros(0, np.int64)
    out = np.maximum(-rows.boxes, rows.boxes - np.tile(rows.sides, 2))  # (M, 4), how far each edge reaches out
    if (wrong := np.flatnonzero((out > np.tile(rows.slack, 2)).any(1))).size:
        what = f"lies outside its picture, {rows.sides[wrong[0], 0]:.6g} x {rows.sides[wrong[0], 1]:.6g} {rows.unit}"
        raise _fault(
            rows, int(wrong[0]), what, "mend or remove it; boxes are cut where they reach out by rounding alone"
        )
    if cut := int((out > NOISE * np.tile(rows.sides, 2)).any(1).sum()):
        notice(f"{where}: {cut:,} of {len(out):,} boxes reach out of their pictures by rounding, and are cut there")
    boxes = np.clip(rows.boxes, 0, np.tile(rows.sides, 2))
    flat = np.flatnonzero(~(boxes[:, 2:] > boxes[:, :2]).all(1))
    crossed = np.flatnonzero((rows.boxes[:, 2:] < rows.boxes[:, :2]).any(1))
    if len(crossed) or len(flat) * FLAT > len(boxes):
        raise _fault(rows, int([*crossed, *flat][0]), "has no width or no height in its picture", "mend or remove it")
    if len(flat):
        names = some([rows.named(row) for row in flat.tolist()])
        notice(f"{where}: {len(flat):,} of {len(boxes):,} boxes have no width or no height, and are left out: {names}")
    kept = np.setdiff1d(np.arange(len(boxes)), flat)
    return boxes[kept], kept


def _fault(rows: Rows, row: int, what: str, hint: str) -> UserError:
    left, top, right, bottom = rows.boxes[row]
    text = f"{rows.named(row)}: the box from {left:.6g}, {top:.6g} to {right:.6g}, {bottom:.6g} {what}"
    return UserError(text, hint, BAD_DATA)
