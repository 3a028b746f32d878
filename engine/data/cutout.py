"""Blank a square of each training picture (cutout, arXiv 1708.04552), batch by batch; augment.py shifts and mirrors."""

from __future__ import annotations

from collections.abc import Iterator
from typing import TypeVar

import torch
from torch import Tensor

from engine.data.augment import generator
from engine.errors import UserError
from engine.system import ranks

Answer = TypeVar("Answer")
NO_STEP = -1
"""The step number of the squares' generator. No training step has it, so orders and shifts do not change."""


def check(side: int | None, picture: int, boxes: bool) -> None:
    """Refuse what cutout cannot do.

    Args:
        side: the side of the squares in pixels; None for no squares.
        picture: the side of the pictures.
        boxes: whether the pictures have objects to find.

    Raises:
        UserError: for pictures with boxes, and for squares as large as a picture (exit 2).
    """
    if side and boxes:
        raise UserError(f"--cutout {side} could hide objects whose boxes remain", "leave --cutout out for a detector")
    if side and side >= picture:
        raise UserError(f"--cutout {side} can hide a whole picture of {picture}x{picture}", "give a smaller side")


def blanked(
    batches: Iterator[tuple[Tensor, Answer]], side: int, count: int, size: int, seed: int, epoch: int, start: int = 0
) -> Iterator[tuple[Tensor, Answer]]:
    """Set a square of each picture to 0, the mean colour. Its centre lies anywhere in the picture, whose edges cut it.

    Args:
        batches: normalised pictures, float, (B, C, H, W), with their answers. The pictures are changed in place. With several
            ranks, they are this rank's share of each batch.
        side: pixels.
        count: pictures in an epoch.
        size: pictures in a batch of all ranks.
        start: number of the first batch. The squares of a step depend only on seed, epoch and step.
    """
    centres: Tensor | None = None
    for step, (images, answer) in enumerate(batches, start):
        height, width = images.shape[2:]
        if centres is None:  # one copy for all steps, as each copy makes a GPU wait
            source = generator(seed, epoch, NO_STEP)
            drawn = [torch.randint(0, extent, (count,), generator=source) for extent in (height, width)]
            centres = torch.stack(drawn).to(images.device)
        ours = centres[:, step * size : (step + 1) * size]
        rows, columns = ours[:, ranks.share(ours.shape[1]), None] - side // 2
        images.masked_fill_(
            (_within(rows, side, height)[:, :, None] & _within(columns, side, width)[:, None])[:, None], 0
        )
        yield images, answer


def _within(first: Tensor, side: int, extent: int) -> Tensor:
    """Return which places of an axis lie in each picture's square: bool, (B, extent).

    Args:
        first: int64, (B, 1).
    """
    places = torch.arange(extent, device=first.device)
    return (places >= first) & (places < first + side)
