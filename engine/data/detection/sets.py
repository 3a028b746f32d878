"""The detection sets by name, as Data: digit scenes, COCO and YOLO folders."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import torch

from engine.data.detection import scenes
from engine.data.detection.objects import Objects
from engine.data.detection.sources import Memory, Source
from engine.data.detection.split import DetectionSplit
from engine.data.info import DETECTION, DataInfo
from engine.data.splits import Data, held_out

NAMES = ("scenes", "coco", "yolo")
SCENES_MEAN, SCENES_STD = (0.4701, 0.4230, 0.3626), (0.3464, 0.2725, 0.2858)
"""Of the training scenes at a side of 160 pixels."""


def describe_scenes(image_size: int | None) -> DataInfo:
    """What is known of digit scenes without composing them. Digits are not mirrored."""
    names = tuple(map(str, range(10)))
    return DataInfo(
        "scenes", "digit scenes (composed)", len(names), image_size or scenes.SIDE, SCENES_MEAN, SCENES_STD, 0, False,
        names, DETECTION,
    )  # fmt: skip


def load(
    name: str, root: Path, device: torch.device, image_size: int | None, val: int, workers: int, flip: bool | None = None
) -> Data:  # fmt: skip
    """A detection set as Data; the arguments are those of catalogue.load.

    Raises:
        UserError: exit 4 for pictures or annotations that are missing, damaged or contradict each other, exit 2 if --val leaves
            no training pictures.
    """
    info = describe_scenes(image_size)
    (train, shown), (test, tested) = scenes.read(info.image_size)
    parts: list[tuple[Source, Objects]] = [(Memory(train), shown), (Memory(test), tested)]
    if flip is not None:
        info = replace(info, flip=flip)
    if val:
        numbers = [chosen.tolist() for chosen in held_out(len(train), val)]
        parts = [(Memory(train[chosen]), shown.some(chosen)) for chosen in numbers]
    workers = workers if device.type == "cuda" else 0
    made = [DetectionSplit(source, objects, info, device, workers) for source, objects in parts]
    return Data(info, made[0], made[1], "val" if val else "test")
