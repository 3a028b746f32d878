"""Scale uint8 pictures in memory, measure their mean and standard deviation, and limit their size."""

from __future__ import annotations

import torch
from torch import Tensor

from engine.data.info import Channels
from engine.errors import UserError

RESIZED_BYTES = 4 * 10**9  # the limit for a set that cannot be streamed


def widest_shift(size: int) -> int:
    """Return the largest shift of a picture in training, in pixels: 4 of 32."""
    return max(1, size // 8)


def check_size(pictures: int, size: int | None) -> None:
    """Refuse an --image_size for which a set kept in memory would be too large (exit 2)."""
    needed = pictures * (size or 0) ** 2 * 3
    if needed > RESIZED_BYTES:
        largest = int((RESIZED_BYTES / pictures / 3) ** 0.5)
        raise UserError(
            f"--image_size {size}: {pictures:,} pictures of that size would take {needed / 1e9:.1f} GB",
            f"give at most --image_size {largest} here; --dataset imagefolder reads larger pictures from files",
        )


def resize(images: Tensor, size: int | None) -> Tensor:
    """Scale uint8 (N, H, W, 3) to side `size`, bilinear; None leaves the pictures unchanged."""
    if size is None or images.shape[1] == size:
        return images.contiguous()
    scaled = images.new_empty(len(images), size, size, 3)
    for start in range(0, len(images), 1000):  # in parts: two float copies of all would take eight times the memory
        part = images[start : start + 1000].permute(0, 3, 1, 2).float()
        part = torch.nn.functional.interpolate(part, (size, size), mode="bilinear", antialias=True)
        scaled[start : start + 1000] = part.round().clamp(0, 255).permute(0, 2, 3, 1)
    return scaled


def statistics(images: Tensor, digits: int = 4) -> tuple[Channels, Channels]:
    """Measure mean and standard deviation per channel of uint8 (N, H, W, 3), as fractions of 255.

    Args:
        digits: decimals of both. A constant channel gets a standard deviation of 10^-digits, as it is a divisor.
    """
    return of_counts(counts(images), digits)


def counts(images: Tensor) -> Tensor:
    """Count each channel's values in uint8 (N, H, W, 3): int64, (3, 256). Counts of parts can be added."""
    return torch.stack([torch.bincount(channel, minlength=256) for channel in images.reshape(-1, 3).unbind(1)])


def of_counts(found: Tensor, digits: int = 4) -> tuple[Channels, Channels]:
    """Return mean and standard deviation from the result of `counts`, as `statistics` does."""
    levels = torch.arange(256, dtype=torch.float64) / 255
    mean, std = [], []
    for channel in found:
        share = channel.double() / channel.sum()  # exact
        mean.append(float(share @ levels))
        std.append(max(float(share @ (levels - mean[-1]) ** 2) ** 0.5, 10**-digits))
    return _rounded(mean, digits), _rounded(std, digits)


def _rounded(values: list[float], digits: int) -> Channels:
    return tuple(round(v, digits) for v in values)
