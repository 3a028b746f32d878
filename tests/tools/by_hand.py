"""A network whose batch norm stands in no block of ours."""

from __future__ import annotations

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
