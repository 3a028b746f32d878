"""Normalise, shift and mirror a batch of pictures; the random numbers depend only on the position in the run."""

from __future__ import annotations

from functools import cache

import torch
from torch import Tensor

from engine.data.info import Channels, DataInfo

LARGE = 3 * 96 * 96
"""From this many values in a picture on, copying rectangles is faster on a CPU than gathering pixels."""
MOST_AT_ONCE, CACHED = 2**22, 2**18
"""A CPU normalises a batch of more than MOST_AT_ONCE values in parts of CACHED values, which fit into its cache."""
LUMA = (0.299, 0.587, 0.114)
"""The weights of red, green and blue in grey: ITU-R BT.601, as in PIL's conversion to "L"."""


def generator(seed: int, epoch: int, step: int = 0) -> torch.Generator:
    """Return a CPU generator that depends only on its position in the run, so that any step can be repeated alone."""
    mixed = (seed * 1_000_003 + epoch) * 1_000_003 + step
    return torch.Generator().manual_seed(mixed % 2**63)


def normalise(pictures: Tensor, info: DataInfo) -> Tensor:
    """Normalise uint8 (B, H, W, 3) to float32 (B, info.channels, H, W) in channels_last memory.

    For one channel, pixels in [0, 1] become grey without rounding before they are normalised.
    """
    if pictures.device.type != "cpu" or pictures.numel() <= MOST_AT_ONCE:
        return _normalised(pictures, info).permute(0, 3, 1, 2)
    found = torch.empty(*pictures.shape[:3], info.channels)
    each = max(1, CACHED // pictures[:1].numel())
    for some, into in zip(pictures.split(each), found.split(each), strict=True):
        into.copy_(_normalised(some, info))
    return found.permute(0, 3, 1, 2)


def _normalised(pictures: Tensor, info: DataInfo) -> Tensor:
    """Normalise without splitting; the result has its channels last."""
    width = pictures.shape[2]
    mean, std, luma = _constants(info.mean, info.std, width, pictures.device)
    pixels = pictures / 255
    if info.channels == 1:
        pixels = (pixels * luma).sum(-1, keepdim=True)
    rows = pixels.flatten(2)  # mean and std are repeated along a row: three values alone would not be vectorised
    return rows.sub_(mean).div_(std).unflatten(2, (width, -1))


@cache
def _constants(mean: Channels, std: Channels, width: int, device: torch.device) -> tuple[Tensor, Tensor, Tensor]:
    """Return mean and std for a row of pixels, and LUMA; cached, because a copy per batch would make a GPU wait."""
    one, other = (torch.tensor(values, device=device).repeat(width) for values in (mean, std))
    return one, other, torch.tensor(LUMA, device=device)


def moves(count: int, info: DataInfo, source: torch.Generator) -> Tensor:
    """Draw each picture's shifts down and right, 0 to 2 pad, and mirroring (0 or 1): int64, (3, count), on the CPU."""
    shift = torch.randint(0, 2 * info.pad + 1, (2, count, 1), generator=source)
    mirrored = torch.rand(count, 1, generator=source) < 0.5 if info.flip else torch.zeros(count, 1)
    return torch.cat([shift.squeeze(2), mirrored.long().T])


def moved(pictures: Tensor, info: DataInfo, how: Tensor) -> Tensor:
    """Shift and mirror each picture as `moves` drew it, with black beyond the edges, and normalise it.

    Args:
        how: int64, (3, B), from `moves`, on the pictures' device.
    """
    large = pictures.device.type == "cpu" and pictures[:1].numel() >= LARGE
    return normalise((_copied if large else _gathered)(pictures, info, how), info)


def _gathered(pictures: Tensor, info: DataInfo, how: Tensor) -> Tensor:
    """Gather all pixels at once, which is fast for small pictures and on a GPU."""
    count, height, width, _ = pictures.shape
    pad, (index, down, right) = info.pad, _counts((count, height, width), pictures.device)
    rows = how[0, :, None] + down  # (B, H), in the padded picture
    columns = how[1, :, None] + right
    if info.flip:
        columns = torch.where(how[2, :, None] > 0, columns.flip(1), columns)
    padded = torch.nn.functional.pad(pictures, (0, 0, pad, pad, pad, pad))
    return padded[index[:, None, None], rows[:, :, None], columns[:, None, :]]


def _copied(pictures: Tensor, info: DataInfo, how: Tensor) -> Tensor:
    """Copy a rectangle of each picture, one picture after the other."""
    _, height, width, _ = pictures.shape
    found = torch.zeros_like(pictures)
    for picture, into, (row, column, mirrored) in zip(pictures, found, how.T.tolist(), strict=True):
        down, right = row - info.pad, column - info.pad
        part = picture[max(down, 0) : height + min(down, 0), max(right, 0) : width + min(right, 0)]
        top, left = max(-down, 0), max(-right, 0)
        if mirrored and info.flip:
            part, left = part.flip(1), width - left - part.shape[1]
        into[top : top + part.shape[0], left : left + part.shape[1]] = part
    return found


@cache
def _counts(sizes: tuple[int, ...], device: torch.device) -> tuple[Tensor, ...]:
    return tuple(torch.arange(size, device=device) for size in sizes)
