"""A user's network for tests: two residual blocks whose inner layers can be pruned, and a linear classifier."""

from __future__ import annotations

from collections.abc import Sequence

from torch import Tensor, nn

from models.blocks import ConvBNAct, GlobalMean
from models.channels import ChannelGroup, Consumer

ARCH = "tests.tools.residual:residual"
STEM = 12
"""The width of the additions' operands; it belongs to no group, so it never changes."""


class Residual(nn.Module):
    """A block (B, width, H, W) -> (B, width, H, W); `inner` can be pruned, the sum fixes `width`."""

    def __init__(self, width: int, inner: int) -> None:
        super().__init__()
        self.first = ConvBNAct(width, inner, 3)
        self.second = ConvBNAct(inner, width, 3)

    def forward(self, x: Tensor) -> Tensor:
        return x + self.second(self.first(x))


class ResidualNetwork(nn.Sequential):
    """A residual network. `cfg` is the inner widths of both blocks, and the width that the linear layer reads.

    It has no `arch_args`: build() adds them.
    """

    def __init__(self, cfg: Sequence[int], classes: int) -> None:
        super().__init__()
        self.cfg, self.ends = list(cfg), ("stem.conv", "classify")
        self.stem = ConvBNAct(3, STEM, 3)
        self.block1 = Residual(STEM, cfg[0])
        self.block2 = Residual(STEM, cfg[1])
        self.last = ConvBNAct(STEM, cfg[2])
        self.mean = GlobalMean()
        self.classify = nn.Linear(cfg[2], classes)

    def channel_groups(self) -> list[ChannelGroup]:
        inner = [
            ChannelGroup(f"{block}.first.bn", f"{block}.first.conv", (Consumer(f"{block}.second.conv"),))
            for block in ("block1", "block2")
        ]
        return [*inner, ChannelGroup("last.bn", "last.conv", (Consumer("classify"),))]


def residual(cfg: Sequence[int] | None = None, classes: int = 10) -> ResidualNetwork:
    return ResidualNetwork(cfg or (16, 24, 20), classes)


def bare(cfg: Sequence[int] | None = None, classes: int = 10) -> nn.Module:
    """Return a network that declares nothing and does not accept pictures."""
    return nn.Linear(3, classes)
