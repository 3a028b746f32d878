"""What of a picture a network is shown: its middle, or in training by ImageNet's recipe a random part. Both are square.

The numbers of that recipe, and the roundings of torchvision, whose networks were trained by it.
"""

from __future__ import annotations

import math
import random
from typing import Any

import torch
from torch import Tensor

from engine.cli.datasets import IMAGENET

SIDE = 224
"""Side of ImageNet's pictures, unless another one is asked for."""
MARGIN = 256 / 224
"""Short side of the picture that the middle is cut from, against that of the middle."""
AREA, RATIO = (0.08, 1.0), (3 / 4, 4 / 3)
"""Share of the picture's area that a random part has, and its width by its height, which is drawn on a logarithmic scale."""
ATTEMPTS = 10

Box = tuple[int, int, int, int]
"""Left, top, right and bottom, as PIL has it."""


def short_side(size: int, crop: str) -> int:
    """To how many pixels the short side is scaled before a middle of side `size` is cut: 256 for 224 by ImageNet's recipe."""
    return round(size * MARGIN) if crop == IMAGENET else size


def middle(rgb: Any, size: int, crop: str) -> Any:
    """What a network is judged on: scaled, and the middle cut out.

    Args:
        rgb: a picture of PIL's, of any size.

    Returns:
        One of (size, size); by ImageNet's recipe what torchvision's Resize and CenterCrop give.
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
    """A number for each picture of a batch, which `part` draws from: int64, (count,)."""
    return torch.randint(2**62, (count,), generator=source)


def part(rgb: Any, size: int, seed: int, flip: bool) -> Any:
    """What a network is trained on by ImageNet's recipe: a random part, scaled, half of them mirrored; a function of its seed.

    Args:
        rgb: as in `middle`.
        flip: whether any are mirrored; the part is the same.
    """
    from PIL.Image import Resampling, Transpose

    draws = random.Random(seed)
    mirrored = draws.random() < 0.5
    found = rgb.crop(box(rgb.width, rgb.height, draws)).resize((size, size), Resampling.BILINEAR)
    return found.transpose(Transpose.FLIP_LEFT_RIGHT) if flip and mirrored else found


def box(width: int, height: int, draws: random.Random) -> Box:
    """Where a random part lies, drawn as torchvision's RandomResizedCrop draws it; of very long pictures at last the middle."""
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
    """By `random` alone: of all methods of random.Random it is promised to give the same in every version of Python."""
    return low + (high - low) * draws.random()
