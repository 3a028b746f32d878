"""Networks whose batch norm is in no block of the toolkit, and blocks with a forward of their own."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor, nn

from models.blocks import ConvBNAct, GlobalMean


class ByHand(nn.Module):
    """A convolution and batch norm outside any block, after a block."""

    def __init__(self) -> None:
        super().__init__()
        self.block = ConvBNAct(3, 4, 3)
        self.conv, self.norm = nn.Conv2d(4, 4, 3), nn.BatchNorm2d(4)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.norm(self.conv(self.block(x)))


class Plain(nn.Module):
    """A network of torch's modules only."""

    def __init__(self, classes: int) -> None:
        super().__init__()
        self.first, self.norm, self.act = nn.Conv2d(3, 4, 3), nn.BatchNorm2d(4), nn.ReLU()
        self.second, self.head = nn.Conv2d(4, 6, 3), nn.Linear(6, classes)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.head(self.second(self.act(self.norm(self.first(x)))).mean((2, 3)))


def plain(cfg: Sequence[int] | None = None, classes: int = 10) -> Plain:
    return Plain(classes)


class Before(ConvBNAct):
    """Pre-activation: the batch norm does not read the convolution's output."""

    def forward(self, x: Tensor) -> Tensor:
        return self.conv(self.act(self.bn(x)))


class Behind(ConvBNAct):
    """A sum is between the convolution and its batch norm."""

    def forward(self, x: Tensor) -> Tensor:
        return self.act(self.bn(self.conv(x) + x))


class Again(ConvBNAct):
    """The batch norm runs at two places, one of them not after a convolution."""

    def forward(self, x: Tensor) -> Tensor:
        return self.act(self.bn(self.bn(self.conv(x))))


class Twice(ConvBNAct):
    """Convolution and batch norm run at two places, always together."""

    def forward(self, x: Tensor) -> Tensor:
        x = self.act(self.bn(self.conv(x)))
        return self.act(self.bn(self.conv(x)))


class Named(ConvBNAct):
    """The same forward under another name."""


FOLDED = {Named: True, Twice: True, Before: False, Behind: False, Again: False}
"""True for each kind of block whose batch norm can be folded."""


class Own(nn.Sequential):
    """A network with one block of a given kind in the middle."""

    def __init__(self, kind: type[ConvBNAct], classes: int = 10) -> None:
        super().__init__()
        self.stem, self.relu, self.block = nn.Conv2d(3, 6, 3), nn.ReLU(), kind(6, 6, 3)
        self.mean, self.head = GlobalMean(), nn.Linear(6, classes)
        nn.init.uniform_(self.block.bn.weight, 0.5, 2)
        nn.init.normal_(self.block.bn.running_mean)


def before(classes: int = 10) -> nn.Module:
    return Own(Before, classes)


def again(classes: int = 10) -> nn.Module:
    return Own(Again, classes)
