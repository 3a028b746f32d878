"""Pictures with rectangles of one colour in them: the box of each can be seen in the pixels, whatever was done to a picture."""

from __future__ import annotations

import numpy as np
import torch
from torch import Tensor

GROUND = (0, 0, 90)
COLOURS = ((250, 0, 0), (0, 250, 0))
"""Of the rectangles, by their labels. No two of them, nor one and the ground, are alike in the first two channels."""


def painted(size: tuple[int, int], boxes: list[list[int]], labels: list[int]) -> np.ndarray:
    """uint8, (height, width, 3); size is (width, height)."""
    picture = np.full((size[1], size[0], 3), GROUND, np.uint8)
    for (left, top, right, bottom), label in zip(boxes, labels, strict=True):
        picture[top:bottom, left:right] = COLOURS[label]
    return picture


def seen(picture: Tensor, label: int) -> list[float] | None:
    """The box of what has a label's colour in uint8 (H, W, 3), to half a pixel; None if there is none."""
    there = picture[..., label].int() - picture[..., 1 - label].int() > 125
    rows, columns = (torch.nonzero(there.any(axis)).flatten() for axis in (1, 0))
    return [int(columns[0]), int(rows[0]), int(columns[-1]) + 1, int(rows[-1]) + 1] if len(rows) else None
