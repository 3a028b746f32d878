"""Codes of a network's first layer that reads the picture's bytes (--ends int8): 8-bit weights, and the bytes themselves.

A picture is normalised by (byte / 255 - mean) / std. Its bytes are integers already, so a layer whose weights divide by
255 std works on them without rounding, and a packed network computes what was trained. The mean is rounded to a byte.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from models.layers.quantizers.affine import affine_weight
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
        self._span = int(-max(centers)), int(255 - min(centers))

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
    """Symmetric 8-bit codes of weight / (255 std), with one grid for each filter. Shape: (out, in / groups, h, w).

    Args:
        std: of each channel of the picture.
        filters, groups: of the layer.
    """

    def __init__(self, std: Sequence[float], filters: int, groups: int) -> None:
        super().__init__()
        self.bits, self.scales = BITS, 1
        self.spread: Tensor
        spread = torch.tensor([255 * n for n in std])
        self.register_buffer("spread", by_group(spread, filters, groups)[:, :, None, None], persistent=False)

    def forward(self, weight: Tensor) -> Quantized:
        return affine_weight(weight / self.spread, BITS, symmetric=True, per_channel=True)


def by_group(channels: Tensor, filters: int, groups: int) -> Tensor:
    """Return the numbers of the channels that each filter reads, (filters, in / groups), from one a channel, (in,)."""
    return channels.reshape(groups, -1).repeat_interleave(filters // groups, 0)
