"""Check annotated boxes: clip those that leave their picture by rounding, and refuse wrong ones."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np

from engine.errors import BAD_DATA, UserError
from engine.system.messages import notice, some

SLACK = 0.01
"""How far a box may reach beyond its picture, as a fraction of the picture's side."""
NOISE = 1e-4
"""Boxes that reach out by less are clipped without a notice, as annotations are rounded."""
FLAT = 10_000
"""One box in this many may have no width or no height, and is left out. COCO's training pictures have 2 in 860,001."""


@dataclass(frozen=True)
class Rows:
    """The unchecked boxes of a part.

    Args:
        boxes: float64, (M, 4): x1, y1, x2, y2, in any unit.
        sides: float64, (M, 2): width and height of each box's picture, in the same unit.
        slack: float64, (M, 2): how far each box may reach beyond its picture.
        named: the name of a row in errors: its file and its place there.
        unit: the unit of boxes and sides, in words.
    """

    boxes: np.ndarray
    sides: np.ndarray
    slack: np.ndarray
    named: Callable[[int], str]
    unit: str


def checked(rows: Rows, where: str) -> tuple[np.ndarray, np.ndarray]:
    """Clip the boxes to their pictures; return them, (K, 4), and their row numbers, (K,), without a few flat ones.

    Args:
        where: the part's path, for notices.

    Raises:
        UserError: naming the first box outside its picture, and the first box without width or height if more than one
            in FLAT are so or a box has its sides crossed (exit 4).
    """
    if not len(rows.boxes):
        return np.zeros((0, 4)), np.zeros(0, np.int64)
    out = np.maximum(-rows.boxes, rows.boxes - np.tile(rows.sides, 2))  # (M, 4), how far each edge reaches out
    if (wrong := np.flatnonzero((out > np.tile(rows.slack, 2)).any(1))).size:
        what = f"lies outside its picture, {rows.sides[wrong[0], 0]:.6g} x {rows.sides[wrong[0], 1]:.6g} {rows.unit}"
        raise _fault(
            rows, int(wrong[0]), what, "correct or remove it; only boxes that reach out by rounding are clipped"
        )
    if cut := int((out > NOISE * np.tile(rows.sides, 2)).any(1).sum()):
        notice(f"{where}: {cut:,} of {len(out):,} boxes reach beyond their pictures by rounding; clipped")
    boxes = np.clip(rows.boxes, 0, np.tile(rows.sides, 2))
    flat = np.flatnonzero(~(boxes[:, 2:] > boxes[:, :2]).all(1))
    crossed = np.flatnonzero((rows.boxes[:, 2:] < rows.boxes[:, :2]).any(1))
    if len(crossed) or len(flat) * FLAT > len(boxes):
        raise _fault(
            rows, int([*crossed, *flat][0]), "has no width or no height in its picture", "correct or remove it"
        )
    if len(flat):
        names = some([rows.named(row) for row in flat.tolist()])
        notice(f"{where}: {len(flat):,} of {len(boxes):,} boxes have no width or no height; left out: {names}")
    kept = np.setdiff1d(np.arange(len(boxes)), flat)
    return boxes[kept], kept


def _fault(rows: Rows, row: int, what: str, hint: str) -> UserError:
    left, top, right, bottom = rows.boxes[row]
    text = f"{rows.named(row)}: the box from {left:.6g}, {top:.6g} to {right:.6g}, {bottom:.6g} {what}"
    return UserError(text, hint, BAD_DATA)
