"""The objects of many pictures, in arrays. Reference counting in lists would copy them into every loader process."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, fields, replace

import numpy as np
import torch
from torch import Tensor


@dataclass(frozen=True)
class Objects:
    """The objects in the pictures of a part: one row for each of M objects, sorted by picture.

    Args:
        ends: int64, (N + 1,): the objects of picture i are rows ends[i] .. ends[i + 1].
        boxes: float32, (M, 4): x1, y1, x2, y2 in pixels of the picture scaled to the network's side (or in fractions of
            the side, before it is known).
        labels: int64, (M,), from 0, without a background class.
        crowd: bool, (M,): whether the box holds many objects that are not annotated one by one.
        area: float32, (M,): an object's area, in the squared unit of the boxes.
    """

    ends: np.ndarray
    boxes: np.ndarray
    labels: np.ndarray
    crowd: np.ndarray
    area: np.ndarray

    @classmethod
    def gathered(
        cls, pictures: int, owners: Sequence[int] | np.ndarray, boxes: np.ndarray, labels: Sequence[int] | np.ndarray,
        crowd: np.ndarray | None = None, area: np.ndarray | None = None,
    ) -> Objects:  # fmt: skip
        """Build from rows in any order; the rows of a picture keep their order.

        Args:
            owners: (M,), the number of each object's picture.
            crowd: (M,), by default all False.
            area: (M,), by default width by height.
        """
        owner = np.asarray(owners, np.int64)
        order = np.argsort(owner, kind="stable")
        ends = np.concatenate([[0], np.cumsum(np.bincount(owner, minlength=pictures))]).astype(np.int64)
        boxes = np.asarray(boxes, np.float64).reshape(-1, 4)
        if area is None:
            area = (boxes[:, 2:] - boxes[:, :2]).prod(1)
        if crowd is None:
            crowd = np.zeros(len(owner), bool)
        return cls(
            ends, boxes[order].astype(np.float32), np.asarray(labels, np.int64)[order],
            np.asarray(crowd, bool)[order], np.asarray(area, np.float64)[order].astype(np.float32),
        )  # fmt: skip

    def __len__(self) -> int:
        return len(self.ends) - 1

    def of(self, picture: int) -> dict[str, Tensor]:
        """Return copies of one picture's "boxes", "labels", "crowd" and "area" as tensors."""
        rows = slice(self.ends[picture], self.ends[picture + 1])
        return {field.name: torch.tensor(getattr(self, field.name)[rows]) for field in fields(self)[1:]}

    def some(self, pictures: Sequence[int]) -> Objects:
        """Return the objects of some pictures, renumbered in the given order."""
        rows = [np.arange(self.ends[picture], self.ends[picture + 1]) for picture in pictures]
        ends = np.concatenate([[0], np.cumsum([len(part) for part in rows])]).astype(np.int64)
        taken = np.concatenate([np.zeros(0, np.int64), *rows])
        return Objects(ends, *(getattr(self, field.name)[taken] for field in fields(self)[1:]))

    def scaled(self, size: float) -> Objects:
        """Return a copy with boxes multiplied by `size`, and areas by its square."""
        boxes = (self.boxes.astype(np.float64) * size).astype(np.float32)
        return replace(self, boxes=boxes, area=(self.area.astype(np.float64) * size**2).astype(np.float32))
