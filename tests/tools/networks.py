"""Networks in the form that commands work on, for small pictures."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import Any

from torch import Tensor, nn

from engine.checkpoint.format import Checkpoint
from models import forms
from models.graph.capture.form import capture
from models.graph.flow import first_layers, last_layers
from models.graph.normal import NormalForm

NARROW = {
    "nin": [8] * 8, "nin_3x3": [8] * 8, "nin_gc": [8, 8, 16, 16, 8, 32, 32, 16],
    "separable": [4, 4, 8, 8, 8, 16, 16, 16], "separable_wide": [4, 4, 8, 8, 8, 16, 16, 16], "slimming": [4, 6, 8],
}  # fmt: skip
"""Widths for tests."""


def form(arch: str, cfg: Sequence[int] | None = None, side: int = 8, **args: Any) -> NormalForm:
    """Return a network by its name, with fresh weights."""
    return forms.build(arch, cfg, side=side, **args)


def captured(network: nn.Module, side: int = 8) -> NormalForm:
    """Return the normal form of a test's own network, which shares its parameters."""
    return capture(network.eval(), (3, side, side), "tests:network")


def ends(network: NormalForm) -> tuple[tuple[str, ...], tuple[str, ...]]:
    """Return a network's first and last layers, for `QuantSpec.at_ends`."""
    return first_layers(network), last_layers(network)


def for_side(content: Checkpoint, side: int) -> Checkpoint:
    """Return a checkpoint with this picture side; files of the original repository have none."""
    return replace(content, dataset=replace(content.dataset, image_size=side))


class Forked(nn.Module):
    """A sum, a pool, and a value that two layers and the sum read."""

    def __init__(self) -> None:
        super().__init__()
        self.stem, self.n0 = nn.Conv2d(3, 16, 3, padding=1), nn.BatchNorm2d(16)
        self.a, self.na = nn.Conv2d(16, 16, 3, padding=1, bias=False), nn.BatchNorm2d(16)
        self.a2, self.na2 = nn.Conv2d(16, 16, 3, padding=1, bias=False), nn.BatchNorm2d(16)
        self.b, self.nb = nn.Conv2d(16, 16, 3, padding=1, bias=False), nn.BatchNorm2d(16)
        self.short = nn.Conv2d(16, 16, 1)
        self.pool, self.fc = nn.MaxPool2d(2), nn.Linear(16, 5)

    def forward(self, x: Tensor) -> Tensor:
        x = self.n0(self.stem(x)).relu()
        y = self.na(self.a(x)).relu()
        y = self.na2(self.a2(y)).relu()
        y = self.nb(self.b(self.pool(y)))
        return self.fc((y + self.short(self.pool(x))).relu().mean((2, 3)))
