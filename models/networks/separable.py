"""The original repository's depthwise experiment: NIN with inner convolutions split into k x k and 1 x 1."""

from __future__ import annotations

import itertools
from collections.abc import Sequence

from torch import Tensor, nn

from engine.checkpoint.words import counted
from models.blocks import ConvBNAct, GlobalMean
from models.networks.nin import widths

CFG = (32, 64, 128, 256, 256, 256, 512, 1024)
KERNELS = (1, 1, 3, 1, 1, 3, 1)


class SeparableBlock(ConvBNAct):
    """A block of `conv1` (k x k, `groups` groups, to `middle` channels) and `conv` (1 x 1), with one BN and activation.

    Shapes: (B, in_channels, H, W) -> (B, out_channels, H', W').
    """

    def __init__(
        self,
        in_channels: int,
        middle: int,
        out_channels: int,
        kernel: int,
        groups: int,
        pool: nn.Module | None,
    ) -> None:
        super().__init__(middle, out_channels, pool=pool)
        self.conv1: nn.Module = nn.Conv2d(in_channels, middle, kernel, padding=kernel // 2, groups=groups)

    def forward(self, x: Tensor) -> Tensor:
        return super().forward(self.conv1(x))


class SeparableNIN(nn.Sequential):
    """Separable NIN: `block1` (an ordinary block) to `block9` (the classes); blocks 2 to 8 are separable.

    Args:
        cfg: widths of blocks 1 to 8, before doubling.
        doubled: whether the 1 x 1 convolutions have twice the channels, which conv1 then reads in pairs.
        multipliers: for blocks 2 to 8, conv1's output channels per group; None: cfg[i] / cfg[i - 1], for a network that
            is not pruned. A pruned network keeps the multipliers of the unpruned one.

    Raises:
        ValueError: if `cfg` does not have 8 widths, or no multipliers fit it.
    """

    def __init__(
        self, cfg: Sequence[int], classes: int, doubled: bool, multipliers: Sequence[int] | None = None
    ) -> None:
        if len(cfg) != 8:
            raise ValueError(f"cfg has {counted(len(cfg), 'width')}, but this network has 8")
        if multipliers is None:
            if any(after % before for before, after in itertools.pairwise(cfg)):
                raise ValueError("each width must be a multiple of the one before it")
            multipliers = [after // before for before, after in itertools.pairwise(cfg)]
        if len(multipliers) != 7 or any(type(m) is not int or m < 1 for m in multipliers):
            raise ValueError(f"multipliers {multipliers!r} are not 7 integers")
        super().__init__()
        self.arch_args = {"multipliers": list(multipliers)}
        self._unit = [1] + [2 if doubled else 1] * 7  # each block's channels per unit of width
        self.add_module("block1", ConvBNAct(3, cfg[0], 5))
        for number in range(2, 9):
            groups, unit = cfg[number - 2], self._unit[number - 1]
            self.add_module(
                f"block{number}",
                SeparableBlock(
                    groups * self._unit[number - 2],
                    groups * multipliers[number - 2],
                    cfg[number - 1] * unit,
                    KERNELS[number - 2],
                    groups,
                    nn.MaxPool2d(2, 2) if number in (3, 6) else None,
                ),
            )
        self.add_module("block9", ConvBNAct(cfg[7] * self._unit[7], classes))
        self.add_module("mean", GlobalMean())


def wide_widths(network: nn.Module) -> list[int]:
    """Return the cfg of a doubled network."""
    first, *others = widths(network)
    return [first, *(width // 2 for width in others)]


def separable(
    cfg: Sequence[int] | None = None, classes: int = 10, multipliers: Sequence[int] | None = None
) -> SeparableNIN:
    """Build the network with depthwise and 1 x 1 convolutions: 1,559,198 parameters, 159,580,160 MACs."""
    return SeparableNIN(CFG if cfg is None else cfg, classes, False, multipliers)


def separable_wide(
    cfg: Sequence[int] | None = None, classes: int = 10, multipliers: Sequence[int] | None = None
) -> SeparableNIN:
    """Build the network with twice the 1 x 1 channels: 3,113,310 parameters, 316,637,184 MACs."""
    return SeparableNIN(CFG if cfg is None else cfg, classes, True, multipliers)
