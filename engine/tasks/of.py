"""The task of a network: boxes where it brings a detector's own code with it, else classes."""

from __future__ import annotations

from torch import nn

from engine.data.info import DataInfo
from engine.errors import UserError
from engine.tasks.base import Task
from engine.tasks.classification import CLASSIFICATION


def task_of(network: nn.Module, info: DataInfo, arch: str = "the network") -> Task:
    """What a network is trained for.

    Args:
        network: as normal form, or what is made of it.
        info: of the pictures.

    Raises:
        UserError: exit 2 for a classifier and pictures with boxes, and the reverse; as Detection.
    """
    detector = getattr(getattr(network, "captured", None), "detector", None)
    if detector is None and info.boxes:
        raise UserError(
            f"{info.label} has boxes, and {arch} is no detector",
            "take a detector: --arch torchvision:ssdlite320_mobilenet_v3_large, or one of your own with --core",
        )
    if detector is not None and not info.boxes:
        raise UserError(
            f"{arch} is a detector, and {info.label} has no boxes",
            "take pictures with boxes: --dataset scenes, coco or yolo",
        )
    if detector is None:
        return CLASSIFICATION
    from engine.tasks.detection import Detection

    return Detection(detector, info.classes)
