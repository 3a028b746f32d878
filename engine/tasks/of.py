"""Choose the task of a network: detection if it contains a detector's own code, else classification."""

from __future__ import annotations

from torch import nn

from engine.data.info import DataInfo
from engine.errors import UserError
from engine.tasks.base import Task
from engine.tasks.classification import CLASSIFICATION


def task_of(network: nn.Module, info: DataInfo, arch: str = "the network") -> Task:
    """Return the task of a network.

    Args:
        network: in normal form, or made from one.
        info: the description of the pictures.

    Raises:
        UserError: for a classifier with pictures that have boxes, a detector with others, or as Detection (exit 2).
    """
    detector = getattr(getattr(network, "captured", None), "detector", None)
    if detector is None and info.boxes:
        raise UserError(
            f"{info.label} has boxes, but {arch} is not a detector",
            "take a detector: --arch torchvision:ssdlite320_mobilenet_v3_large, or your own with --core",
        )
    if detector is not None and not info.boxes:
        raise UserError(
            f"{arch} is a detector, but {info.label} has no boxes",
            "take pictures with boxes: --dataset scenes, coco or yolo",
        )
    if detector is None:
        return CLASSIFICATION
    from engine.tasks.detection import Detection

    return Detection(detector, info.classes)
