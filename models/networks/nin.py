"""Network in Network (arXiv 1312.4400) as in the original repository: nine conv-BN-ReLU blocks and a global mean."""

from __future__ import annotations

from collections.abc import Sequence
from typing import cast

from torch import nn

from engine.checkpoint.words import counted
from models.blocks import ChannelShuffle, ConvBNAct, GlobalMean

CFG = (192, 160, 96, 192, 192, 192, 192, 192)


class NIN(nn.Sequential):
    """Network in Network: blocks `block1` to `block9`; the last one outputs the classes.

    Args:
        cfg: output channels of blocks 1 to 8.
        classes: output channels of block 9.
        kernels, groups: kernel side and groups of each block's convolution.
        pool: kernel, stride, padding of the max-pools after blocks 3 and 6.

    If grouped convolutions follow each other, a `shuffleN` precedes block N.

    Raises:
        ValueError: if `cfg` does not have 8 widths, or a block's groups do not divide its widths.
    """

    def __init__(
        self,
        cfg: Sequence[int],
        classes: int,
        kernels: Sequence[int] = (5, 1, 1, 5, 1, 1, 3, 1, 1),
        groups: Sequence[int] = (1,) * 9,
        pool: tuple[int, int, int] = (3, 2, 1),
    ) -> None:
        if len(cfg) != 8:
            raise ValueError(f"cfg has {counted(len(cfg), 'width')}, but this network has 8")
        widths = [3, *cfg, classes]
        for number, (before, after, count) in enumerate(zip(widths, widths[1:], groups, strict=False), 1):
            if before % count or after % count:
                raise ValueError(f"block {number} has {count} groups, which do not divide {before} -> {after} channels")
        super().__init__()
        self._groups = [1, *groups]
        for number in range(1, 10):
            if self._shuffle(number) > 1:
                self.add_module(f"shuffle{number}", ChannelShuffle(self._shuffle(number)))
            block = ConvBNAct(
                widths[number - 1],
                widths[number],
                kernels[number - 1],
                self._groups[number],
                nn.MaxPool2d(*pool) if number in (3, 6) else None,
            )
            self.add_module(f"block{number}", block)
        self.add_module("mean", GlobalMean())

    def _shuffle(self, number: int) -> int:
        """Return the groups of the shuffle before a block; 1 means no shuffle."""
        before, here = self._groups[number - 1], self._groups[number]
        return before if here > 1 else 1


def widths(network: nn.Module) -> list[int]:
    """Return the cfg that builds a network of this size, read from its layers."""
    return [cast(nn.Conv2d, network.get_submodule(f"block{n}.conv")).out_channels for n in range(1, 9)]


def nin(cfg: Sequence[int] | None = None, classes: int = 10) -> NIN:
    """Build the network of the original repository's code: a 5x5 second stage, 969,822 parameters, 222,486,528 MACs."""
    return NIN(CFG if cfg is None else cfg, classes)


def nin_3x3(cfg: Sequence[int] | None = None, classes: int = 10) -> NIN:
    """Build the network of the original repository's first table: a 3x3 second stage, 674,910 parameters."""
    return NIN(CFG if cfg is None else cfg, classes, kernels=(5, 1, 1, 3, 1, 1, 3, 1, 1))
