"""The network of the golden files of format 2, which are for grey pictures. It must not change."""

from __future__ import annotations

from torch import nn


def small(classes: int = 10) -> nn.Module:
    """Return a network of two convolutions; the first reads one channel."""
    return nn.Sequential(
        nn.Conv2d(1, 8, 3, 2, 1, bias=False), nn.BatchNorm2d(8), nn.ReLU(),
        nn.Conv2d(8, 12, 3, 1, 1, bias=False), nn.BatchNorm2d(12), nn.ReLU(),
        nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(12, classes),
    )  # fmt: skip
