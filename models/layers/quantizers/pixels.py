"""Codes of a network's first layer that reads the picture's bytes (--ends int8): those bytes, and weights in their units.

A picture is normalised as (byte / 255 - mean) / std. Its bytes are integers already. A layer whose weights are divided by
255 std reads them without rounding, and a packed network computes what was trained. The mean is rounded to a byte.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from models.layers.quantizers.base import Quantized, Quantizer, straight_through

BITS = 8


class PixelCodes(Quantizer):
    """The bytes of a normalised picture minus the byte nearest to their mean, so that padding with 0 stays 0.

    Shapes: (B, C, H, W) -> the same. Numbers between two bytes are rounded.

    Args:
        mean, std: of each channel, for pixels in [0, 1].
    """

    def __init__(self, mean: Sequence[float], std: Sequence[float]) -> None:
        super().__init__()
        self.bits, self.mean, self.std = BITS, tuple(mean), tuple(std)
        self.spread: Tensor
        self.middle: Tensor
        spread, middle = (torch.tensor([255 * n for n in each]).reshape(-1, 1, 1) for each in (std, mean))
        self.register_buffer("spread", spread, persistent=False)  # the spec of the network holds them
        self.register_buffer("middle", middle, persistent=False)
        centers = self.centers()
        self._span = -max(centers), 255 - min(centers)

    def centers(self) -> list[int]:
        """Return the byte of code 0 in each channel."""
        return [int(center) for center in self.middle.round().flatten().tolist()]

    def codes_now(self) -> bool:
        return True

    def span(self) -> tuple[int, int]:
        return self._span

    def forward(self, x: Tensor) -> Quantized:
        bytes_ = x * self.spread + self.middle
        codes = bytes_.detach().round().clamp_(0, 255) - self.middle.round()
        return Quantized(straight_through(bytes_, codes), None)


class PixelWeight(Quantizer):
    """The codes of weight / (255 std) by another quantizer. Shape: (out, in / groups, h, w).

    Args:
        inner: the quantizer.
        std: of each channel of the picture.
        filters, groups: of the layer.
    """

    def __init__(self, inner: Quantizer, std: Sequence[float], filters: int, groups: int) -> None:
        super().__init__()
        self.inner = inner
        self.bits, self.scales, self.constants = inner.bits, inner.scales, inner.constants
        self.zero_points = inner.zero_points
        self.spread: Tensor
        spread = torch.tensor([255 * n for n in std])
        self.register_buffer("spread", by_group(spread, filters, groups)[:, :, None, None], persistent=False)

    def in_units(self, weight: Tensor) -> Tensor:
        return weight / self.spread

    def forward(self, weight: Tensor) -> Quantized:
        return self.inner(self.in_units(weight))


def by_group(channels: Tensor, filters: int, groups: int) -> Tensor:
    """Return the numbers of the channels that each filter reads, (filters, in / groups), from one a channel, (in,)."""
    return channels.reshape(groups, -1).repeat_interleave(filters // groups, 0)
