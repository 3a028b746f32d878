"""Folders of random pictures, one folder a class, for tests that read them from disk."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from pathlib import Path

import numpy as np
from PIL import Image

Sides = Callable[[np.random.Generator], tuple[int, int]]


def write(
    root: Path, counts: Mapping[str, int], classes: Sequence[str], sides: int | Sides, suffix: str = ".png"
) -> Path:
    """Write root/PART/CLASS/NUMBER.png and return `root`. Seed 0 draws the pictures, in the order of parts and classes.

    Args:
        counts: by part, the number of pictures of each class.
        sides: the side of all pictures, or a function that draws each one's height and width.
    """
    draws = np.random.default_rng(0)
    for part, count in counts.items():
        for name in classes:
            folder = root / part / name
            folder.mkdir(parents=True)
            for number in range(count):
                high, wide = (sides, sides) if isinstance(sides, int) else sides(draws)
                pixels = draws.integers(0, 256, (high, wide, 3), np.uint8)
                Image.fromarray(pixels).save(folder / f"{number}{suffix}")
    return root
