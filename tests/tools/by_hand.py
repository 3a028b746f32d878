"""Networks whose batch norm stands in no block of ours."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import nn

from models.blocks import ConvBNAct
from models.channels import ChannelGroup


class ByHand(nn.Module):
    """A convolution and batch norm that stand in no block, after one that do."""

    def __init__(self) -> None:
        super().__init__()
        self.block = ConvBNAct(3, 4, 3)
        self.conv, self.norm = nn.Conv2d(4, 4, 3), nn.BatchNorm2d(4)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.norm(self.conv(self.block(x)))

    def channel_groups(self) -> list[ChannelGroup]:
        return []


class Plain(nn.Module):
    """A network of torch's own modules alone."""

    def __init__(self, classes: int) -> None:
        super().__init__()
        self.cfg: list[int] = []
        self.ends = ("first", "head")
        self.first, self.norm, self.act = nn.Conv2d(3, 4, 3), nn.BatchNorm2d(4), nn.ReLU()
        self.second, self.head = nn.Conv2d(4, 6, 3), nn.Linear(6, classes)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.head(self.second(self.act(self.norm(self.first(x)))).mean((2, 3)))

    def channel_groups(self) -> list[ChannelGroup]:
        return []


def plain(cfg: Sequence[int] | None = None, classes: int = 10) -> Plain:
    return Plain(classes)
