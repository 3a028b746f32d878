"""Zoom out, crop, mirror and scale a training picture with its boxes, by torchvision.

This is SSD's augmentation (arXiv 1512.02325, section 2.2) without its changes of colour.
"""

from __future__ import annotations

from functools import cache
from typing import Any

from torch import Tensor

from engine.data.info import Channels, DataInfo
from engine.numerics import random_state

ZOOM = (1.0, 2.0)
"""The zoom-out of half of the pictures: the side of the plain canvas divided by the picture's side."""
TRIALS = 10
"""Crops tried for each minimum overlap. SSD tried 50, but most of them fail if objects are small."""
LEAST = 1.0
"""The least width and height, in pixels, of a box to train on after augmentation."""


def place(seed: int, epoch: int, step: int, number: int) -> int:
    """Return a seed that depends only on a picture's position in the run; `number` is its place in all ranks' batch."""
    mixed = seed
    for part in (epoch, step, number):
        mixed = mixed * 1_000_003 + part
    return mixed % 2**63


def augmented(
    picture: Tensor, boxes: Tensor, labels: Tensor, info: DataInfo, seed: int
) -> tuple[Tensor, Tensor, Tensor]:
    """Augment a picture with its boxes; the result depends only on the arguments.

    A crop keeps the boxes with their centre inside it, and clips them: torchvision's rule, and SSD's. A quarter of a
    box may be left if its centre is in a corner of the crop. A picture without boxes is not cropped, as no crop could
    keep a box.

    Args:
        picture: uint8, (H, W, 3).
        boxes: float32, (n, 4): x1, y1, x2, y2 in pixels of the picture.
        labels: (n,).
        seed: from `place`.

    Returns:
        The picture, uint8 (S, S, 3) with S = info.image_size; the remaining boxes, in its pixels; their labels.
    """
    from torchvision import tv_tensors

    sample: dict[str, Any] = {
        "picture": tv_tensors.Image(picture.permute(2, 0, 1)),
        "boxes": tv_tensors.BoundingBoxes(boxes, format="XYXY", canvas_size=tuple(picture.shape[:2])),
        "labels": labels,
    }
    moves = _moves(info.image_size, info.mean, bool(info.flip), len(boxes) > 0)
    with random_state.kept(seed, gpus=False):  # torchvision draws from torch's global generator
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
