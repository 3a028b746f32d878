"""The small network of the network-slimming article (arXiv 1708.06519 explained): three strided blocks and a linear layer."""

from __future__ import annotations

from collections.abc import Sequence
from typing import cast

from torch import nn

from models.blocks import ConvBNAct, GlobalMean

CFG = (64, 128, 256)
KERNELS = (7, 3, 3)


class Slimming(nn.Sequential):
    """Blocks `block1` to `block3`, `mean`, `linear`. Its mean over the picture is the article's AvgPool2d(2) at 20 x 20.

    Raises:
        ValueError: if `cfg` has another length than 3.
    """

    def __init__(self, cfg: Sequence[int], classes: int) -> None:
        if len(cfg) != 3:
            raise ValueError(f"cfg has {len(cfg)} widths, this network 3")
        super().__init__()
        for number, (before, after, kernel) in enumerate(zip((3, *cfg), cfg, KERNELS, strict=False), 1):
            block = ConvBNAct(before, after, kernel, stride=2, padding=1, bias=False)
            self.add_module(f"block{number}", block)
        self.add_module("mean", GlobalMean())
        self.add_module("linear", nn.Linear(cfg[-1], classes))


def widths(network: nn.Module) -> list[int]:
    """The cfg that makes a network of this size, by its layers."""
    return [cast(nn.Conv2d, network.get_submodule(f"block{n}.conv")).out_channels for n in range(1, 4)]


def slimming(cfg: Sequence[int] | None = None, classes: int = 10) -> Slimming:
    """379,458 parameters for 2 classes; 57,151 with cfg 29, 56, 75."""
    return Slimming(CFG if cfg is None else cfg, classes)
