"""Digit scenes (composed): real handwritten digits on crops of two real photographs, all shipped with scikit-learn.

A scene depends only on its part and number. Its layout is in whole steps of a grid, and can be drawn at any size.
Test scenes show digits and regions of the photographs that are in no training scene.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from engine.data.detection.objects import Objects
from engine.data.digits import read_digits
from engine.data.pixels import check_size
from engine.errors import BAD_DATA, UserError

COUNTS = (2_000, 500)
"""Training and test scenes."""
SIDE = 160
GRID = 10_000
"""Steps along a side of a scene. Places and sizes are drawn in steps, so they do not depend on the size in pixels."""
MOST, HEIGHTS, STRETCH = 5, (1_400, 4_500), (80, 125)
"""The most digits in a scene; their heights in steps, with a margin (ink is about 12 to 40 % of the side); their widths
in % of the written ones."""
OVERLAP, TRIES = 10, 40
"""The most overlap of two digits, in % of the smaller one; places tried for a digit before it is left out."""
CROPS, TRAINING_WIDTH = (96, 192), 448
"""The side of a background crop, in the photograph's pixels; the width of the training region: 70 % of 640."""
PHOTOGRAPHS, SHAPE = ("china.jpg", "flower.jpg"), (427, 640, 3)
INK = 64
"""The least cover of a pixel, of 255, that counts as ink. Boxes enclose the ink."""


class Draws:
    """Integers drawn from a seed. NumPy guarantees the bits of PCG64, but not the methods of its Generator."""

    def __init__(self, *seed: int) -> None:
        self._bits = np.random.PCG64(list(seed))

    def between(self, low: int, high: int) -> int:
        """Draw a number from low to high, both included."""
        return low + int(self._bits.random_raw() % (high - low + 1))


@dataclass(frozen=True)
class Placed:
    """A digit's number in its part, and the rectangle it is drawn in, in steps of GRID."""

    digit: int
    left: int
    top: int
    width: int
    height: int

    def covers(self, other: Placed) -> bool:
        """Return whether both overlap by more than OVERLAP of the smaller one."""
        wide = min(self.left + self.width, other.left + other.width) - max(self.left, other.left)
        high = min(self.top + self.height, other.top + other.height) - max(self.top, other.top)
        smaller = min(self.width * self.height, other.width * other.height)
        return wide > 0 and high > 0 and wide * high * 100 > OVERLAP * smaller


def place(draws: Draws, inks: list[np.ndarray]) -> list[Placed]:
    """Draw 1 to 5 digits and their places in a scene, so that they do not hide each other."""
    found: list[Placed] = []
    for _ in range(draws.between(1, MOST)):
        digit, high = draws.between(0, len(inks) - 1), draws.between(*HEIGHTS)
        rows, columns = inks[digit].shape
        wide = min(high * columns * draws.between(*STRETCH) // (100 * rows), HEIGHTS[1])
        for _ in range(TRIES):
            tried = Placed(digit, draws.between(0, GRID - wide), draws.between(0, GRID - high), wide, high)
            if not any(map(tried.covers, found)):
                found.append(tried)
                break
    return found


def background(draws: Draws, photographs: list[np.ndarray], size: int) -> np.ndarray:
    """Draw a square from one of the regions, scaled: uint8, (size, size, 3)."""
    from PIL import Image

    region = photographs[draws.between(0, len(photographs) - 1)]
    side = draws.between(*CROPS)
    top, left = (draws.between(0, length - side) for length in region.shape[:2])
    crop = Image.fromarray(np.ascontiguousarray(region[top : top + side, left : left + side]))
    return np.array(crop.resize((size, size), Image.Resampling.BILINEAR))


def draw(picture: np.ndarray, where: Placed, ink: np.ndarray, draws: Draws) -> tuple[int, int, int, int]:
    """Draw a digit, light on dark or dark on light, and return the tight box of its ink, in pixels."""
    from PIL import Image

    size = len(picture)
    left, top, right, bottom = (
        round(step * size / GRID)
        for step in (where.left, where.top, where.left + where.width, where.top + where.height)
    )
    right, bottom = min(max(right, left + 3), size), min(max(bottom, top + 3), size)
    left, top = min(left, right - 3), min(top, bottom - 3)
    drawn = Image.fromarray(ink).resize((right - left, bottom - top), Image.Resampling.BICUBIC)
    cover = np.asarray(drawn).astype(np.int64)[..., None]  # (h, w, 1)
    cover = np.minimum(cover * 3 // 2, 255)  # the strokes of 8 x 8 digits are faint
    under = picture[top:bottom, left:right].astype(np.int64)
    gray = (under * (299, 587, 114)).sum(-1, keepdims=True) // 1000
    light = int((gray * cover).sum()) < 128 * int(cover.sum())
    colour = np.array([draws.between(*((215, 255) if light else (0, 40))) for _ in range(3)])
    picture[top:bottom, left:right] = (under * (255 - cover) + colour * cover + 127) // 255
    rows, columns = (np.flatnonzero((cover[..., 0] >= INK).any(axis)) for axis in (1, 0))
    return left + int(columns[0]), top + int(rows[0]), left + int(columns[-1]) + 1, top + int(rows[-1]) + 1


def read(size: int = SIDE, counts: tuple[int, int] = COUNTS) -> list[tuple[Tensor, Objects]]:
    """Draw the training and the test scenes: pictures, uint8 (N, size, size, 3), and their objects.

    Raises:
        UserError: if they would take too much memory (exit 2); if scikit-learn's files are not the known ones (exit 4).
    """
    check_size(sum(counts), size)
    photographs, parts = _photographs(), []
    for number, (images, labels) in enumerate(read_digits(Path(), 8)[:2]):
        inks = [_ink(image) for image in images[..., 0].numpy()]
        regions = [photo[:, TRAINING_WIDTH:] if number else photo[:, :TRAINING_WIDTH] for photo in photographs]
        pictures = np.empty((counts[number], size, size, 3), np.uint8)
        owners, boxes, shown = [], [], []
        for index, picture in enumerate(pictures):
            draws = Draws(number, index)
            picture[:] = background(draws, regions, size)
            for where in place(draws, inks):
                owners.append(index)
                boxes.append(draw(picture, where, inks[where.digit], draws))
                shown.append(int(labels[where.digit]))
        parts.append((torch.from_numpy(pictures), Objects.gathered(len(pictures), owners, np.array(boxes), shown)))
    return parts


def _ink(image: np.ndarray) -> np.ndarray:
    """Crop a digit to its ink, with a margin of one pixel in which strokes fade out."""
    rows, columns = (np.flatnonzero((image >= INK).any(axis)) for axis in (1, 0))
    return np.pad(image[rows[0] : rows[-1] + 1, columns[0] : columns[-1] + 1], 1)


def _photographs() -> list[np.ndarray]:
    from sklearn.datasets import load_sample_image

    found = [load_sample_image(name) for name in PHOTOGRAPHS]
    if any(photo.shape != SHAPE for photo in found):
        text = "the photographs of the installed scikit-learn are not the known ones (their size differs)"
        raise UserError(text, "reinstall scikit-learn", BAD_DATA)
    return found
