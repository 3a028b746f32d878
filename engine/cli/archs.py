"""What --arch may name: a network of this toolkit, of a library, or of the user's code."""

from __future__ import annotations

ARCHS = ("nin", "nin_3x3", "nin_gc", "separable", "separable_wide", "slimming")
"""The names that models/registry.py knows, which needs torch; a test compares them."""

LIBRARIES = ("torchvision", "timm")
"""Their networks: `torchvision:resnet18`. A name is looked up in the library's own list, and nothing is downloaded."""


def library(arch: str) -> str | None:
    """The library that a network is of."""
    place = arch.partition(":")[0]
    return place if place in LIBRARIES and ":" in arch else None


def is_users_code(arch: str) -> bool:
    """Whether building this network runs code outside this toolkit and its libraries: a file alone must not cause it."""
    return ":" in arch and library(arch) is None


def prefix(arch: str) -> str:
    """What default file names of a network begin with: nin, resnet18, timm_resnet18, net of my_net.py:net."""
    name = arch.rpartition(":")[2]
    return f"timm_{name}" if library(arch) == "timm" else name
