"""Check the results of a detector's own code: its losses in training, its boxes in evaluation."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from models.check import Misdeclared
from models.detectors.stages import CALLED

PARTS = ("boxes", "labels", "scores")
_WORDS = {"boxes": "numbers", "labels": "integers", "scores": "numbers"}


def check_losses(found: Any, arch: str) -> None:
    """Check a result of training: a dict of single floats.

    Args:
        arch: the network's name in messages.

    Raises:
        Misdeclared: exit 2 for anything else, as all errors of this module.
    """
    if not isinstance(found, dict) or not found:
        raise Misdeclared(f"--arch {arch}: in training it returns no dict of losses", CALLED)
    for name, loss in found.items():
        if not isinstance(loss, Tensor) or not loss.is_floating_point() or loss.numel() != 1:
            raise Misdeclared(
                f"--arch {arch}: in training its loss {name} is {_said(loss)}, not a float tensor of one number",
                "return the mean over the batch: loss.mean()",
            )


def check_boxes(found: Any, pictures: int, arch: str) -> None:
    """Check a result of evaluation: for each picture boxes (n, 4), labels (n,) and scores (n,).

    Raises:
        Misdeclared: exit 2 for anything else.
    """
    if not isinstance(found, list) or not all(isinstance(one, dict) and {*PARTS} <= one.keys() for one in found):
        raise Misdeclared(f"--arch {arch}: in evaluation it returns no list of dicts with {', '.join(PARTS)}", CALLED)
    if len(found) != pictures:
        text = f"--arch {arch}: in evaluation it returns {len(found)} dicts for {pictures} pictures"
        raise Misdeclared(text, "return one dict a picture, with empty tensors for a picture without boxes")
    for one in found:
        boxes = one["boxes"]
        count = len(boxes) if isinstance(boxes, Tensor) and boxes.ndim else -1
        for part in PARTS:
            value, shape = one[part], (count, 4) if part == "boxes" else (count,)
            if not isinstance(value, Tensor) or value.shape != shape or not _is_of(part, value):
                wanted = f"{_WORDS[part]} {'(n, 4)' if part == 'boxes' else shape}"
                raise Misdeclared(
                    f"--arch {arch}: in evaluation its {part} are {_said(value)}, not a tensor of {wanted}",
                    "return float boxes (n, 4), integer labels (n,) and float scores (n,) for each picture",
                )


def _is_of(part: str, value: Tensor) -> bool:
    odd = value.is_complex() or value.dtype == torch.bool
    return not odd and not (part == "labels" and value.is_floating_point())


def _said(value: Any) -> str:
    if not isinstance(value, Tensor):
        return f"of type {type(value).__name__}"
    return f"{str(value.dtype).removeprefix('torch.')} {tuple(value.shape)}"
