"""The small network of the network-slimming article (arXiv 1708.06519 explained): three strided blocks, one linear."""

from __future__ import annotations

from collections.abc import Sequence
from typing import cast

from torch import nn

from engine.checkpoint.words import counted
from models.blocks import ConvBNAct, GlobalMean

CFG = (64, 128, 256)
KERNELS = (7, 3, 3)


class Slimming(nn.Sequential):
    """The article's network: `block1` to `block3`, `mean`, `linear`. At 20 x 20, `mean` is the article's AvgPool2d(2).

    Raises:
        ValueError: if `cfg` does not have 3 widths.
    """

    def __init__(self, cfg: Sequence[int], classes: int) -> None:
        if len(cfg) != 3:
            raise ValueError(f"cfg has {counted(len(cfg), 'width')}, but this network has 3")
        super().__init__()
        for number, (before, after, kernel) in enumerate(zip((3, *cfg), cfg, KERNELS, strict=False), 1):
            block = ConvBNAct(before, after, kernel, stride=2, padding=1, bias=False)
            self.add_module(f"block{number}", block)
        self.add_module("mean", GlobalMean())
        self.add_module("linear", nn.Linear(cfg[-1], classes))


def widths(network: nn.Module) -> list[int]:
    """Return the cfg that builds a network of this size, read from its layers."""
    return [cast(nn.Conv2d, network.get_submodule(f"block{n}.conv")).out_channels for n in range(1, 4)]


def slimming(cfg: Sequence[int] | None = None, classes: int = 10) -> Slimming:
    """Build the network: 379,458 parameters for 2 classes; 57,151 with cfg 29, 56, 75."""
    return Slimming(CFG if cfg is None else cfg, classes)
