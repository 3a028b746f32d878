"""Build networks of torchvision and timm by name, with fresh weights; nothing is downloaded."""

from __future__ import annotations

import warnings
from difflib import get_close_matches
from typing import Any

from torch import nn

from engine.cli.archs import DETECTORS, library
from engine.errors import UserError
from engine.system.packages import install

CORE = ("backbone", "head")
TWO_CORES = ("fasterrcnn_resnet50_fpn", "fasterrcnn_resnet50_fpn_v2", "fasterrcnn_mobilenet_v3_large_fpn",
             "fasterrcnn_mobilenet_v3_large_320_fpn", "maskrcnn_resnet50_fpn", "maskrcnn_resnet50_fpn_v2",
             "keypointrcnn_resnet50_fpn")  # fmt: skip


def build(arch: str, classes: int) -> nn.Module:
    """Build a network of a library.

    Args:
        arch: `torchvision:resnet18`, `timm:resnet18`; for a detector its core is returned.
        classes: number of classes; for a detector without the background.

    Raises:
        UserError: for a name that the library does not list, or if the library is not installed (exit 2).
    """
    name = arch.partition(":")[2]
    return (_torchvision if library(arch) == "torchvision" else _timm)(name, classes)


def _torchvision(name: str, classes: int) -> nn.Module:
    from torchvision import models

    known = [*models.list_models(module=models), *models.list_models(module=models.segmentation), *DETECTORS]
    if name in TWO_CORES:
        raise UserError(
            f"torchvision:{name} is a two-stage detector: its second core reads the results of the first",
            f"take a single-stage detector: torchvision:{', torchvision:'.join(DETECTORS)}",
        )
    if name not in known:
        raise _unknown("torchvision", name, known)
    if name in DETECTORS:
        from models.detectors.core import Core

        return Core(
            models.get_model(name, weights=None, weights_backbone=None, num_classes=classes + 1),
            CORE,
            f"torchvision:{name}",
            classes,
        )
    more: dict[str, Any] = {"weights_backbone": None} if name in models.list_models(module=models.segmentation) else {}
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", FutureWarning)  # torchvision warns about defaults that will change
        return models.get_model(name, weights=None, num_classes=classes, **more)


def _timm(name: str, classes: int) -> nn.Module:
    try:
        import timm
    except ImportError as fault:
        raise UserError("timm is not installed", install("timm")) from fault
    if name not in (known := timm.list_models()):
        raise _unknown("timm", name, known)
    return timm.create_model(name, pretrained=False, num_classes=classes)


def _unknown(source: str, name: str, known: list[str]) -> UserError:
    close = get_close_matches(name, known, n=3)
    return UserError(
        f"{source} has no network {name!r}",
        f"did you mean {' or '.join(close)}?" if close else f"it has {len(known)} networks",
    )
