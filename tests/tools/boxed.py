"""Pictures with rectangles of one colour, whose boxes can be read from the pixels after any change of the picture.

Also folders of such pictures, in COCO's and YOLO's layouts.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import torch
from PIL import Image
from torch import Tensor

GROUND = (0, 0, 90)
COLOURS = ((250, 0, 0), (0, 250, 0))
"""Colours of the rectangles, by label. All of them and the background differ in the first two channels."""


def painted(size: tuple[int, int], boxes: list[list[int]], labels: list[int]) -> np.ndarray:
    """Paint rectangles: uint8, (height, width, 3); size is (width, height)."""
    picture = np.full((size[1], size[0], 3), GROUND, np.uint8)
    for (left, top, right, bottom), label in zip(boxes, labels, strict=True):
        picture[top:bottom, left:right] = COLOURS[label]
    return picture


def seen(picture: Tensor, label: int) -> list[float] | None:
    """Return the box of the pixels with a label's colour in uint8 (H, W, 3), to half a pixel; None without any."""
    there = picture[..., label].int() - picture[..., 1 - label].int() > 125
    rows, columns = (torch.nonzero(there.any(axis)).flatten() for axis in (1, 0))
    return [int(columns[0]), int(rows[0]), int(columns[-1]) + 1, int(rows[-1]) + 1] if len(rows) else None


COUNTS = {"train": 10, "val": 4}
SIDES = (48, 40)


def scene(number: int) -> tuple[list[list[int]], list[int]]:
    """Return the boxes and labels of a picture of SIDES: none in every fourth picture, else one or two."""
    boxes = [[2 + number, 4, 14 + number, 20], [26, 22, 46, 30 + number]]
    count = (0, 1, 2, 2)[number % 4]
    return boxes[:count], [number % 2, 1 - number % 2][:count]


def coco_content(part: str) -> dict[str, Any]:
    """Return the content of COCO's file for a part: categories 3 and 7, image ids from 100, annotation ids from 1."""
    images, annotations = [], []
    for number in range(COUNTS[part]):
        images.append({"id": 100 + number, "file_name": f"{number}.png", "width": SIDES[0], "height": SIDES[1]})
        for (left, top, right, bottom), label in zip(*scene(number), strict=True):
            size = [right - left, bottom - top]
            annotations.append(
                {"id": len(annotations) + 1, "image_id": 100 + number, "category_id": (3, 7)[label],
                 "bbox": [left, top, *size], "area": size[0] * size[1] / 2, "iscrowd": 0}
            )  # fmt: skip
    return {
        "images": images,
        "annotations": annotations,
        "categories": [{"id": 7, "name": "bee"}, {"id": 3, "name": "ant"}],
    }


def pictures(folder: Path, part: str) -> None:
    """Write the pictures of a part."""
    folder.mkdir(parents=True)
    for number in range(COUNTS[part]):
        Image.fromarray(painted(SIDES, *scene(number))).save(folder / f"{number}.png")


def coco_folder(root: Path) -> Path:
    """Write a COCO folder: train.json and train/, val.json and val/."""
    for part in COUNTS:
        pictures(root / part, part)
        (root / f"{part}.json").write_text(json.dumps(coco_content(part)))
    return root


def yolo_row(box: list[int], label: int) -> str:
    """Return a row of a label file."""
    left, top, right, bottom = box[0] / SIDES[0], box[1] / SIDES[1], box[2] / SIDES[0], box[3] / SIDES[1]
    return f"{label} {(left + right) / 2:.6f} {(top + bottom) / 2:.6f} {right - left:.6f} {bottom - top:.6f}\n"


def yolo_folder(root: Path) -> Path:
    """Write a YOLO folder: images/ and labels/ of train and val, and data.yaml. Pictures without objects have an empty or no label file."""
    for part in COUNTS:
        pictures(root / "images" / part, part)
        (root / "labels" / part).mkdir(parents=True)
        for number in range(COUNTS[part]):
            rows = [yolo_row(box, label) for box, label in zip(*scene(number), strict=True)]
            if rows or number:
                (root / "labels" / part / f"{number}.txt").write_text("".join(rows))
    (root / "data.yaml").write_text("train: images/train\nval: images/val\nnames:\n  0: ant\n  1: bee\n")
    return root
