"""Cut the square part of a picture that a network sees: its middle, or a random part in training by ImageNet's recipe.

The figures are that recipe's. Rounding is as in torchvision, whose networks were trained by it.
"""

from __future__ import annotations

import math
import random
from typing import Any

import torch
from torch import Tensor

from engine.cli.datasets import IMAGENET

SIDE = 224
"""Default side of ImageNet's pictures, in pixels."""
MARGIN = 256 / 224
"""Ratio of the scaled picture's short side to the side of the middle cut from it."""
AREA, RATIO = (0.08, 1.0), (3 / 4, 4 / 3)
"""A random part's share of the picture's area, and its width divided by its height, drawn on a logarithmic scale."""
ATTEMPTS = 10

Box = tuple[int, int, int, int]
"""Left, top, right and bottom, as in PIL."""


def short_side(size: int, crop: str) -> int:
    """Return the short side, in pixels, before a middle of side `size` is cut: by ImageNet's recipe 256 for 224."""
    return round(size * MARGIN) if crop == IMAGENET else size


def middle(rgb: Any, size: int, crop: str) -> Any:
    """Scale a picture and cut out its middle, for judging.

    Args:
        rgb: a PIL picture of any size.

    Returns:
        A picture of (size, size); by ImageNet's recipe it equals torchvision's Resize and CenterCrop.
    """
    from PIL.Image import Resampling

    if crop != IMAGENET and rgb.size == (size, size):
        return rgb
    short = short_side(size, crop)
    if crop == IMAGENET:
        width, height = (side * short // min(rgb.size) for side in rgb.size)
        left, top = (round((side - size) / 2) for side in (width, height))
    else:
        scale = short / min(rgb.size)
        width, height = (max(size, round(side * scale)) for side in rgb.size)
        left, top = (width - size) // 2, (height - size) // 2
    return rgb.resize((width, height), Resampling.BILINEAR).crop((left, top, left + size, top + size))


def seeds(count: int, source: torch.Generator) -> Tensor:
    """Draw a seed for `part` for each picture of a batch: int64, (count,)."""
    return torch.randint(2**62, (count,), generator=source)


def part(rgb: Any, size: int, seed: int, flip: bool) -> Any:
    """Cut out and scale a random part by ImageNet's recipe, mirrored with probability 1/2; `seed` determines both.

    Args:
        rgb: as in `middle`.
        flip: whether to mirror at all; the part does not depend on it.
    """
    from PIL.Image import Resampling, Transpose

    draws = random.Random(seed)
    mirrored = draws.random() < 0.5
    found = rgb.crop(box(rgb.width, rgb.height, draws)).resize((size, size), Resampling.BILINEAR)
    return found.transpose(Transpose.FLIP_LEFT_RIGHT) if flip and mirrored else found


def box(width: int, height: int, draws: random.Random) -> Box:
    """Draw the place of a random part like torchvision's RandomResizedCrop; after ATTEMPTS failures, the middle."""
    for _ in range(ATTEMPTS):
        area = width * height * _between(*AREA, draws)
        ratio = math.exp(_between(math.log(RATIO[0]), math.log(RATIO[1]), draws))
        wide, high = round(math.sqrt(area * ratio)), round(math.sqrt(area / ratio))
        if 0 < wide <= width and 0 < high <= height:
            top, left = (int(draws.random() * (room + 1)) for room in (height - high, width - wide))
            return left, top, left + wide, top + high
    wide = min(width, round(height * RATIO[1]))
    high = min(height, round(width / RATIO[0]))
    left, top = (width - wide) // 2, (height - high) // 2
    return left, top, left + wide, top + high


def _between(low: float, high: float, draws: random.Random) -> float:
    """Draw from [low, high) with `random`, the one method whose results Python guarantees across versions."""
    return low + (high - low) * draws.random()
