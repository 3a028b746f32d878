"""Building blocks of the networks: their geometry, without bits and masks."""

from __future__ import annotations

import torch
from torch import Tensor, nn


class ConvBNAct(nn.Module):
    """Convolution, batch norm, optional pool, activation.

    Shapes: (B, in_channels, H, W) -> (B, out_channels, H', W').
    """

    def __init__(
        self,
        in_channels: int,
        out_channels: int,
        kernel: int = 1,
        groups: int = 1,
        pool: nn.Module | None = None,
        stride: int = 1,
        padding: int | None = None,
        bias: bool = True,
    ) -> None:
        super().__init__()
        padding = kernel // 2 if padding is None else padding
        self.conv: nn.Module = nn.Conv2d(in_channels, out_channels, kernel, stride, padding, groups=groups, bias=bias)
        self.bn: nn.Module = nn.BatchNorm2d(out_channels)
        self.pool = pool or nn.Identity()
        self.act: nn.Module = nn.ReLU(inplace=True)

    def forward(self, x: Tensor) -> Tensor:
        return self.act(self.pool(self.bn(self.conv(x))))


class ChannelShuffle(nn.Module):
    """Interleave the channels of `groups` groups (ShuffleNet, arXiv 1707.01083), (B, C, H, W) -> the same.

    Channel c of C goes to position (c mod C/groups) * groups + c // (C/groups).
    """

    def __init__(self, groups: int) -> None:
        super().__init__()
        self.groups = groups

    def forward(self, x: Tensor) -> Tensor:
        batch, channels, height, width = x.shape
        parts = x.reshape(batch, self.groups, channels // self.groups, height, width)
        return (
            parts.transpose(1, 2).reshape(batch, channels, height, width).contiguous(memory_format=torch.channels_last)
        )

    def extra_repr(self) -> str:
        return f"groups={self.groups}"


class GlobalMean(nn.Module):
    """Mean over the picture, (B, C, H, W) -> (B, C). A network that ends in it takes pictures of any size."""

    def forward(self, x: Tensor) -> Tensor:
        return x.mean((2, 3))
