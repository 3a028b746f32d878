"""The values of --arch: a network of this toolkit, of a library, or of your own code."""

from __future__ import annotations

ARCHS = ("nin", "nin_3x3", "nin_gc", "separable", "separable_wide", "slimming")
"""The names in models/registry.py, repeated here because that module imports torch; a test compares the two."""

LIBRARIES = ("torchvision", "timm")
"""Libraries with networks: `torchvision:resnet18`. Names are looked up in the library's list; nothing is downloaded."""

DETECTORS = (
    "ssdlite320_mobilenet_v3_large",
    "ssd300_vgg16",
    "retinanet_resnet50_fpn",
    "retinanet_resnet50_fpn_v2",
    "fcos_resnet50_fpn",
)
"""The single-stage detectors of torchvision."""


def library(arch: str) -> str | None:
    """Return the library of a network, or None."""
    place = arch.partition(":")[0]
    return place if place in LIBRARIES and ":" in arch else None


def is_detector(arch: str) -> bool:
    """Return whether a name is that of a library's detector."""
    return library(arch) == "torchvision" and arch.partition(":")[2] in DETECTORS


def is_users_code(arch: str) -> bool:
    """Return whether building this network runs the user's own code, which a checkpoint alone must never cause."""
    return ":" in arch and library(arch) is None


def prefix(arch: str) -> str:
    """Return the start of a network's default file names: nin, resnet18, timm_resnet18, or net for my_net.py:net."""
    name = arch.rpartition(":")[2]
    return f"timm_{name}" if library(arch) == "timm" else name
