"""A part of a folder of pictures with boxes, listed and checked before any picture is read."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from engine.data.detection.objects import Objects
from engine.data.detection.sources import Files

PARTS = {"train": ("train",), "test": ("val", "valid", "test")}
"""The names of each part, of a file or a folder; the first that exists is read."""


@dataclass(frozen=True)
class Listed:
    """The files of a part and their objects.

    Args:
        sides: each picture's width and height according to its annotations; None if they do not say.
        objects: boxes in fractions of a picture's sides, and areas in fractions of its area.
    """

    files: list[Path]
    sides: list[tuple[int, int]] | None
    objects: Objects

    def some(self, numbers: Sequence[int]) -> Listed:
        """Return a part of the pictures, by their numbers."""
        sides = None if self.sides is None else [self.sides[number] for number in numbers]
        return Listed([self.files[number] for number in numbers], sides, self.objects.some(numbers))

    def at(self, size: int) -> tuple[Files, Objects]:
        """Return the pictures, and their objects in pixels of pictures of `size` by `size`."""
        return Files(self.files, self.sides), self.objects.scaled(size)
