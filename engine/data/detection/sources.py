"""Where a picture to detect objects in is read from: memory, or a file. Its objects: objects.py."""

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
"""Training scales pictures to at most this many times the network's side: a crop of half a picture is still sharp, and a large photograph costs little."""


class Source(Protocol):
    """Pictures by their numbers."""

    def __len__(self) -> int: ...

    def scaled(self, index: int, size: int) -> Tensor:
        """Stretched to size by size: uint8, (size, size, 3)."""

    def whole(self, index: int, size: int) -> Tensor:
        """With `size` to LARGEST * size pixels a side, as many as it has where it can be: uint8, (H, W, 3)."""


class Memory:
    """Pictures that are as large as networks see them: uint8, (N, S, S, 3), on the CPU."""

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
        sides: the width and height that the annotations are made for, upright; None where these do not say.
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
        """A picture of `least` to `most` pixels a side, each side scaled by itself.

        Raises:
            UserError: exit 4, naming the file, if it cannot be read, or is not what was annotated.
        """
        path = self._paths[index]
        picture = decode(path)
        if self._sides is not None and picture.size != tuple(self._sides[index]):
            raise _other_size(path, picture.size, tuple(self._sides[index].tolist()))
        width, height = (min(max(side, least), most) for side in picture.size)
        return stretched(picture, width, height)


def stretched(picture: Any, width: int, height: int) -> Tensor:
    """A picture of PIL's, each side scaled by itself: uint8, (height, width, 3)."""
    from PIL.Image import Resampling

    if picture.size != (width, height):
        picture = picture.resize((width, height), Resampling.BILINEAR)
    return torch.from_numpy(np.array(picture))


def _other_size(path: Path, found: tuple[int, int], said: tuple[int, ...]) -> UserError:
    """Boxes of a picture of another size would lie elsewhere; where both sides are swapped, its EXIF data turn it."""
    text = f"{path} has {found[0]} x {found[1]} pixels, its annotation is for {said[0]} x {said[1]}"
    if found == said[::-1]:
        return UserError(text, "annotate it upright, as its EXIF data turn it, or save it without them", BAD_DATA)
    return UserError(text, "mend the width and height that are annotated, or the picture", BAD_DATA)
