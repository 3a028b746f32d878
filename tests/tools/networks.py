"""Networks in the form that commands work on, for small pictures."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import Any

from torch import nn

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
    """A network by its name, with fresh weights."""
    return forms.build(arch, cfg, side=side, **args)


def captured(network: nn.Module, side: int = 8) -> NormalForm:
    """The normal form of a network of a test's own, with its very parameters."""
    return capture(network.eval(), (3, side, side), "tests:network")


def ends(network: NormalForm) -> tuple[tuple[str, ...], tuple[str, ...]]:
    """What `QuantSpec.at_ends` is to know of a network: its first and its last layers."""
    return first_layers(network), last_layers(network)


def for_side(content: Checkpoint, side: int) -> Checkpoint:
    """A checkpoint for pictures of this side, whatever it says: the original's files say none."""
    return replace(content, dataset=replace(content.dataset, image_size=side))
