"""A training picture with its boxes: zoomed out, cropped, mirrored and scaled, by torchvision.

These are the moves that SSD was trained with (arXiv 1512.02325, section 2.2), without its changes of colour.
"""

from __future__ import annotations

from functools import cache
from typing import Any

import torch
from torch import Tensor

from engine.data.info import Channels, DataInfo

ZOOM = (1.0, 2.0)
"""How many times as wide and high as the picture the plain ground may be that half of the pictures are laid on."""
TRIALS = 10
"""Crops tried for each overlap that is asked for. SSD tried 50, most of them in vain where objects are small."""
LEAST = 1.0
"""Pixels that a box has to be wide and high after all moves to be trained on."""


def place(seed: int, epoch: int, step: int, number: int) -> int:
    """A seed that depends on nothing but the place of a picture in the run: its number in the batch of all ranks together."""
    mixed = seed
    for part in (epoch, step, number):
        mixed = mixed * 1_000_003 + part
    return mixed % 2**63


def augmented(
    picture: Tensor, boxes: Tensor, labels: Tensor, info: DataInfo, seed: int
) -> tuple[Tensor, Tensor, Tensor]:
    """A picture with its boxes as training sees them once; a pure function of its arguments.

    A crop keeps the boxes whose centre lies in it, cut to it: torchvision's rule, and SSD's. What is left of a box may so be a
    quarter of it, where its centre lies in a corner of the crop. A picture without boxes is not cropped, as no crop could keep one.

    Args:
        picture: uint8, (H, W, 3).
        boxes: float32, (n, 4): x1, y1, x2, y2 in pixels of the picture.
        labels: (n,).
        seed: what `place` gives.

    Returns:
        The picture, uint8 (S, S, 3), with S info.image_size; the boxes left, in its pixels; and their labels.
    """
    from torchvision import tv_tensors

    sample: dict[str, Any] = {
        "picture": tv_tensors.Image(picture.permute(2, 0, 1)),
        "boxes": tv_tensors.BoundingBoxes(boxes, format="XYXY", canvas_size=tuple(picture.shape[:2])),
        "labels": labels,
    }
    moves = _moves(info.image_size, info.mean, bool(info.flip), len(boxes) > 0)
    with torch.random.fork_rng(devices=[]):  # torchvision draws from torch's own numbers
        torch.default_generator.manual_seed(seed)  # torch.manual_seed would seed GPUs, too, which nobody sets back
        sample = moves(sample)
    image = sample["picture"].as_subclass(Tensor).permute(1, 2, 0).contiguous()
    return image, sample["boxes"].as_subclass(Tensor), sample["labels"]


@cache
def _moves(size: int, mean: Channels, flip: bool, crop: bool) -> Any:
    from torchvision import tv_tensors
    from torchvision.transforms import v2

    ground = [round(255 * value) for value in (mean if len(mean) == 3 else mean * 3)]
    moves = [v2.RandomZoomOut({tv_tensors.Image: ground, "others": 0}, ZOOM)]
    moves += [v2.RandomIoUCrop(trials=TRIALS)] if crop else []
    moves += [v2.RandomHorizontalFlip()] if flip else []
    return v2.Compose([*moves, v2.Resize((size, size), antialias=True), v2.SanitizeBoundingBoxes(LEAST)])
