"""Open the detection sets by name, as Data: digit scenes, COCO and YOLO folders."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import torch

from engine.data import image_folder
from engine.data.detection import class_names, coco, scenes, yolo
from engine.data.detection.listed import Listed
from engine.data.detection.objects import Objects
from engine.data.detection.sources import Memory, Source
from engine.data.detection.split import DetectionSplit, Item
from engine.data.info import DETECTION, Channels, DataInfo
from engine.data.splits import Data, held_out
from engine.data.stream import statistics
from engine.errors import BAD_DATA, UserError

FOLDERS = {"coco": (coco.read, coco.names), "yolo": (yolo.read, class_names.read)}
"""The readers of each kind of folder: for all of it, and for its class names alone."""
SIDE = 320
"""Default side of pictures in folders, in pixels."""
SCENES_MEAN, SCENES_STD = (0.4701, 0.4230, 0.3626), (0.3464, 0.2725, 0.2858)
"""Measured on the training scenes at a side of 160 pixels."""


def describe(name: str, image_size: int | None, root: Path = Path("data")) -> DataInfo:
    """Describe a set without reading its pictures; a folder's mean and std are then unknown.

    Raises:
        UserError: for a folder without class names (exit 4).
    """
    if name == "scenes":  # digits are not mirrored
        names = tuple(map(str, range(10)))
        return _info(
            "scenes", "digit scenes (composed)", names, image_size or scenes.SIDE, SCENES_MEAN, SCENES_STD, False
        )
    return _of_folder(name, root, FOLDERS[name][1](root), image_size)


def load(
    name: str, root: Path, device: torch.device, image_size: int | None, val: int, workers: int, flip: bool | None = None
) -> Data:  # fmt: skip
    """Open a detection set as Data, with the arguments of catalogue.load.

    Raises:
        UserError: for pictures or annotations that are missing, damaged or contradict each other (exit 4); if --val
            leaves no training pictures (exit 2).
    """
    if name == "scenes":
        info = describe(name, image_size)
        (pictures, shown), (tests, tested) = scenes.read(info.image_size)
        parts: list[tuple[Source, Objects]] = [(Memory(pictures), shown), (Memory(tests), tested)]
        if val:
            chosen = [numbers.tolist() for numbers in held_out(len(pictures), val)]
            parts = [(Memory(pictures[numbers]), shown.some(numbers)) for numbers in chosen]
        workers = workers if device.type == "cuda" else 0  # on a CPU, workers would compete with the network
    else:
        train, test, names = FOLDERS[name][0](root)
        info, whole = _of_folder(name, root, names, image_size), train
        if val:
            train, test = (train.some(numbers.tolist()) for numbers in held_out(len(train.files), val))
        _check_objects(root, train, test, val)
        plain = DetectionSplit(*whole.at(info.image_size), info, torch.device("cpu"), workers)
        mean, std = statistics(plain, _unmoved)
        info = replace(info, mean=mean, std=std)
        parts = [part.at(info.image_size) for part in (train, test)]
    if flip is not None:
        info = replace(info, flip=flip)
    made = [DetectionSplit(source, objects, info, device, workers) for source, objects in parts]
    return Data(info, made[0], made[1], "val" if val else "test")


def _check_objects(root: Path, train: Listed, test: Listed, val: int) -> None:
    """Check that each part has an object. Crowds are neither trained on nor found.

    Raises:
        UserError: naming the part (exit 4; exit 2 if --val made it).
    """
    for part, what in ((train, "training"), (test, "held-out" if val else "test")):
        if part.objects.crowd.all():
            text = f"{root}: no {what} picture has an object outside of crowds"
            if val:
                raise UserError(f"--val {val}: {text}", "hold out another number of pictures, or annotate more objects")
            raise UserError(text, "add annotations", BAD_DATA)


def _info(
    name: str, label: str, names: tuple[str, ...], size: int, mean: Channels, std: Channels, flip: bool
) -> DataInfo:  # fmt: skip
    return DataInfo(name, label, len(names), size, mean, std, 0, flip, names, task=DETECTION)


def _of_folder(name: str, root: Path, names: tuple[str, ...], size: int | None) -> DataInfo:
    """Return a folder's DataInfo, with mean 0 and std 1 in place of measured ones."""
    return _info(name, image_folder.label(root), names, size or SIDE, (0.0,) * 3, (1.0,) * 3, True)


def _unmoved(index: int) -> Item:
    return index, None
