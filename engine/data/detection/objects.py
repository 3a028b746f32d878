"""The objects of many pictures, in arrays: of lists, every loader process would soon have a copy, by counting references."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, fields, replace

import numpy as np
import torch
from torch import Tensor


@dataclass(frozen=True)
class Objects:
    """What the pictures of a part show, one row for each of M objects, those of a picture one after the other.

    Args:
        ends: int64, (N + 1,): the objects of picture i are rows ends[i] .. ends[i + 1].
        boxes: float32, (M, 4): x1, y1, x2, y2 in pixels of the picture when it is scaled to the side that networks see
            (before that side is known, in fractions of it).
        labels: int64, (M,), from 0, without a background.
        crowd: bool, (M,): whether the box holds many objects that nobody has told apart.
        area: float32, (M,): pixels that an object covers, on the scale of the boxes.
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
        """From rows in any order; those of a picture keep theirs.

        Args:
            owners: (M,), the picture of each object.
            crowd, area: none of them by default, and width by height.
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
        """The objects of one picture: "boxes", "labels", "crowd" and "area", as tensors of their own."""
        rows = slice(self.ends[picture], self.ends[picture + 1])
        return {field.name: torch.tensor(getattr(self, field.name)[rows]) for field in fields(self)[1:]}

    def some(self, pictures: Sequence[int]) -> Objects:
        """Those of some pictures, numbered anew in the order given."""
        rows = [np.arange(self.ends[picture], self.ends[picture + 1]) for picture in pictures]
        ends = np.concatenate([[0], np.cumsum([len(part) for part in rows])]).astype(np.int64)
        taken = np.concatenate([np.zeros(0, np.int64), *rows])
        return Objects(ends, *(getattr(self, field.name)[taken] for field in fields(self)[1:]))

    def scaled(self, size: float) -> Objects:
        """With boxes as many times as large, and areas as many times squared."""
        boxes = (self.boxes.astype(np.float64) * size).astype(np.float32)
        return replace(self, boxes=boxes, area=(self.area.astype(np.float64) * size**2).astype(np.float32))
