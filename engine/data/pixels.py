"""Arithmetic on uint8 pictures in memory: scaling, mean and standard deviation, size limits."""

from __future__ import annotations

import torch
from torch import Tensor

from engine.data.info import Channels
from engine.errors import UserError

RESIZED_BYTES = 4 * 10**9  # what a set that cannot be streamed may grow to


def widest_shift(size: int) -> int:
    """Pixels that training shifts a picture by at most: 4 of 32."""
    return max(1, size // 8)


def check_size(pictures: int, size: int | None) -> None:
    """Refuse an --image_size at which a set kept in memory would take too much of it: exit 2."""
    needed = pictures * (size or 0) ** 2 * 3
    if needed > RESIZED_BYTES:
        largest = int((RESIZED_BYTES / pictures / 3) ** 0.5)
        raise UserError(
            f"--image_size {size}: {pictures:,} pictures of that size would take {needed / 1e9:.1f} GB",
            f"at most --image_size {largest} here; larger ones can be read from files, with --dataset imagefolder",
        )


def resize(images: Tensor, size: int | None) -> Tensor:
    """(N, H, W, 3) uint8 to side `size`, bilinear; None leaves the pictures alone."""
    if size is None or images.shape[1] == size:
        return images.contiguous()
    scaled = images.new_empty(len(images), size, size, 3)
    for start in range(0, len(images), 1000):  # as floats they would take four times the room, twice over
        part = images[start : start + 1000].permute(0, 3, 1, 2).float()
        part = torch.nn.functional.interpolate(part, (size, size), mode="bilinear", antialias=True)
        scaled[start : start + 1000] = part.round().clamp(0, 255).permute(0, 2, 3, 1)
    return scaled


def statistics(images: Tensor, digits: int = 4) -> tuple[Channels, Channels]:
    """Mean and standard deviation per channel of uint8 (N, H, W, 3), as fractions of 255.

    Args:
        digits: decimals of both. The standard deviation of a plain channel is one of the last digit: it divides.
    """
    return of_counts(counts(images), digits)


def counts(images: Tensor) -> Tensor:
    """How often each channel of uint8 (N, H, W, 3) has each value: int64, (3, 256). Counts of parts add up: no copy as floats."""
    return torch.stack([torch.bincount(channel, minlength=256) for channel in images.reshape(-1, 3).unbind(1)])


def of_counts(found: Tensor, digits: int = 4) -> tuple[Channels, Channels]:
    """Mean and standard deviation of pixels that were counted, as `statistics`."""
    levels = torch.arange(256, dtype=torch.float64) / 255
    mean, std = [], []
    for channel in found:
        share = channel.double() / channel.sum()  # exact
        mean.append(float(share @ levels))
        std.append(max(float(share @ (levels - mean[-1]) ** 2) ** 0.5, 10**-digits))
    return _rounded(mean, digits), _rounded(std, digits)


def _rounded(values: list[float], digits: int) -> Channels:
    return tuple(round(v, digits) for v in values)
