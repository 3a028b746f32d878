"""Sources of pictures for detection: memory or files. objects.py has their objects."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any, Protocol

import numpy as np
import torch
from torch import Tensor

from engine.data.paths import Paths
from engine.data.pictures import decode
from engine.errors import BAD_DATA, UserError

LARGEST = 2
"""Training scales pictures to at most this many times the network's side. A crop of half a picture is then still sharp,
and a large photograph costs little time."""


class Source(Protocol):
    """Pictures by their numbers."""

    def __len__(self) -> int: ...

    def scaled(self, index: int, size: int) -> Tensor:
        """Return a picture stretched to size by size: uint8, (size, size, 3)."""

    def whole(self, index: int, size: int) -> Tensor:
        """Return a picture with each side clamped to `size` .. LARGEST * size pixels: uint8, (H, W, 3)."""


class Memory:
    """Pictures in memory, already at the network's side: uint8, (N, S, S, 3), on the CPU."""

    def __init__(self, pictures: Tensor) -> None:
        self.pictures = pictures

    def __len__(self) -> int:
        return len(self.pictures)

    def scaled(self, index: int, size: int) -> Tensor:
        return self.pictures[index]

    whole = scaled


class Files:
    """Pictures in files.

    Args:
        sides: each upright picture's width and height according to its annotations; None if they do not say.
    """

    def __init__(self, files: Sequence[Path], sides: Sequence[tuple[int, int]] | None = None) -> None:
        self._paths = Paths(files)
        self._sides = None if sides is None else np.array(sides, np.int64).reshape(-1, 2)

    def __len__(self) -> int:
        return len(self._paths)

    def scaled(self, index: int, size: int) -> Tensor:
        return self._read(index, size, size)

    def whole(self, index: int, size: int) -> Tensor:
        return self._read(index, size, LARGEST * size)

    def _read(self, index: int, least: int, most: int) -> Tensor:
        """Read a picture and clamp each side to `least` .. `most` pixels.

        Raises:
            UserError: naming the file, if it cannot be read or its size contradicts the annotations (exit 4).
        """
        path = self._paths[index]
        picture = decode(path)
        if self._sides is not None and picture.size != tuple(self._sides[index]):
            raise _other_size(path, picture.size, tuple(self._sides[index].tolist()))
        width, height = (min(max(side, least), most) for side in picture.size)
        return stretched(picture, width, height)


def stretched(picture: Any, width: int, height: int) -> Tensor:
    """Stretch a PIL picture: uint8, (height, width, 3)."""
    from PIL.Image import Resampling

    if picture.size != (width, height):
        picture = picture.resize((width, height), Resampling.BILINEAR)
    return torch.from_numpy(np.array(picture))


def _other_size(path: Path, found: tuple[int, int], said: tuple[int, ...]) -> UserError:
    """Return the error for a picture of the wrong size, whose boxes are misplaced; swapped sides mean EXIF rotation."""
    text = f"{path} has {found[0]} x {found[1]} pixels, its annotation is for {said[0]} x {said[1]}"
    if found == said[::-1]:
        return UserError(text, "annotate it as its EXIF data turn it, or save it without EXIF data", BAD_DATA)
    return UserError(text, "correct the annotated width and height, or the picture", BAD_DATA)
