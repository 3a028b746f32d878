"""Max-pools between a norm and the codes: their windows, and their formulas, which the loops in source/windows.h compute.

A max-pool, an activation and a quantizer never decrease, so their order does not matter. Of all numbers of a layer's
output only those that windows select are coded.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F

Pair = tuple[int, int]
LARGEST = 256
"""The most numbers in a window: a byte says which one was chosen."""


@dataclass(frozen=True)
class Windows:
    """Windows of size[0] x size[1] numbers over maps of before[0] x before[1] numbers.

    Args:
        step, around: stride and padding of nn.MaxPool2d, down and across.
    """

    size: Pair
    step: Pair
    around: Pair
    before: Pair

    @classmethod
    def of(cls, pool: nn.MaxPool2d, before: tuple[int, ...]) -> Windows:
        """Return the windows of a pool that `fits`, over maps of this size."""
        high, wide = before
        return cls(pair(pool.kernel_size), pair(pool.stride), pair(pool.padding), (high, wide))

    @property
    def after(self) -> Pair:
        """Size of the map of windows."""
        down, across = (
            (before + 2 * around - size) // step + 1
            for before, around, size, step in zip(self.before, self.around, self.size, self.step, strict=True)
        )
        return down, across


def fits(pool: nn.MaxPool2d) -> bool:
    """Return whether `Windows` describe a pool: no dilation, a byte for each number, no ceil_mode, no indices."""
    size = pair(pool.kernel_size)
    plain = pair(pool.dilation) == (1, 1) and not pool.return_indices and not pool.ceil_mode
    return plain and size[0] * size[1] <= LARGEST


def pair(value: Any) -> Pair:
    """Return a setting that torch allows as one number or two as two numbers."""
    first, second = (value, value) if isinstance(value, int) else value
    return first, second


def selected(z: Tensor, a: Tensor, windows: Windows) -> tuple[Tensor, Tensor]:
    """Return of each window and channel the z with the largest z a, in fp32, and its number in the window, in bytes.

    Of equal numbers the first is chosen, as torch does.

    Shapes: z: (B H W, C), `windows` over maps of H x W; results: (B H' W', C). Source: torch.nn.MaxPool2d.
    """
    (high, wide), width = windows.before, windows.size[1]
    place = F.max_pool2d(
        (z.float() * a.sign()).reshape(-1, high, wide, len(a)).permute(0, 3, 1, 2),
        windows.size, windows.step, windows.around, return_indices=True,
    )[1]  # fmt: skip
    down, across = (torch.arange(count, device=z.device) for count in windows.after)
    top, left = down[:, None] * windows.step[0] - windows.around[0], across * windows.step[1] - windows.around[1]
    which = (place // wide - top) * width + place % wide - left
    chosen = z.reshape(-1, high * wide, len(a)).gather(1, place.flatten(2).transpose(1, 2))
    return chosen.reshape(-1, len(a)).float(), which.permute(0, 2, 3, 1).reshape(-1, len(a)).to(torch.uint8)


def returned(d: Tensor, which: Tensor, z: Tensor, k: Tensor, e0: Tensor, e1: Tensor, windows: Windows) -> Tensor:
    """Return the gradient of z, in z's dtype: d where a window chose it, and through mean and variance as `spread`.

    Args:
        d: gradient of the chosen numbers, fp32.
    """
    (high, wide), channels = windows.before, z.shape[1]
    pictures, number = len(z) // (high * wide), torch.arange(len(d), device=z.device)[:, None]
    down, across = windows.after
    chosen = which.long()
    row = number // across % down * windows.step[0] - windows.around[0] + chosen // windows.size[1]
    column = number % across * windows.step[1] - windows.around[1] + chosen % windows.size[1]
    place = number // (down * across) * (high * wide) + row * wide + column
    out = torch.zeros(pictures * high * wide, channels, device=z.device, dtype=d.dtype).scatter_add_(0, place, d)
    return (out + e0 + (z.float() - k) * e1).to(z.dtype)
