"""Networks that read one channel, or a number of channels that pictures do not have."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from tests.tools.cases import Head, conv_bn


def small(classes: int = 10) -> nn.Module:
    """Return two convolutions, each with a batch norm; the first reads one channel."""
    return nn.Sequential(conv_bn(1, 12, stride=2), conv_bn(12, 16), Head(16, classes))


def four(classes: int = 10) -> nn.Module:
    return nn.Sequential(conv_bn(4, 8), Head(8, classes))


def flat(classes: int = 10) -> nn.Module:
    """Return a network without convolutions that reads 8 x 8 grey pixels."""
    return nn.Sequential(nn.Flatten(), nn.Linear(64, 16), nn.BatchNorm1d(16), nn.ReLU(), nn.Linear(16, classes))


class Coordinates(nn.Module):
    """A network that adds two channels to colour pictures and accepts one size only."""

    def __init__(self, classes: int = 10, size: int = 8) -> None:
        super().__init__()
        self.size, self.conv, self.head = size, nn.Conv2d(5, 8, 3), Head(8, classes)

    def forward(self, x: Tensor) -> Tensor:
        rows = torch.linspace(-1, 1, self.size).expand(len(x), 2, self.size, self.size)
        return self.head(self.conv(torch.cat([x, rows], 1)))


class Either(nn.Module):
    """A network that reads any number of channels."""

    def __init__(self, classes: int = 10) -> None:
        super().__init__()
        self.body = small(classes)

    def forward(self, x: Tensor) -> Tensor:
        return self.body(x.mean(1, keepdim=True))
