"""One batch of pictures, normalised, shifted and mirrored; random numbers depend on the place in the run alone."""

from __future__ import annotations

from functools import cache

import torch
from torch import Tensor

from engine.data.info import Channels, DataInfo

LARGE = 3 * 96 * 96
"""Numbers of a picture from which on copying rectangles is quicker than gathering pixels."""
MOST_AT_ONCE, CACHED = 2**22, 2**18
"""A CPU normalises a batch of more numbers than the first in parts of as many as the second: a part stays in its cache."""
LUMA = (0.299, 0.587, 0.114)
"""What red, green and blue add to the gray of a pixel: ITU-R BT.601, as PIL's conversion to "L"."""


def generator(seed: int, epoch: int, step: int = 0) -> torch.Generator:
    """A CPU generator that depends on nothing but its place in the run, so any step can be redone alone."""
    mixed = (seed * 1_000_003 + epoch) * 1_000_003 + step
    return torch.Generator().manual_seed(mixed % 2**63)


def normalise(pictures: Tensor, info: DataInfo) -> Tensor:
    """uint8 (B, H, W, 3) -> float32 (B, info.channels, H, W) in channels_last memory, mean 0 and std 1 per channel.

    Where there is one channel, pixels are made gray in [0, 1], before normalisation and without rounding.
    """
    if pictures.device.type != "cpu" or pictures.numel() <= MOST_AT_ONCE:
        return _normalised(pictures, info).permute(0, 3, 1, 2)
    found = torch.empty(*pictures.shape[:3], info.channels)
    each = max(1, CACHED // pictures[:1].numel())
    for some, into in zip(pictures.split(each), found.split(each), strict=True):
        into.copy_(_normalised(some, info))
    return found.permute(0, 3, 1, 2)


def _normalised(pictures: Tensor, info: DataInfo) -> Tensor:
    """The same, channels last."""
    width = pictures.shape[2]
    mean, std, luma = _constants(info.mean, info.std, width, pictures.device)
    pixels = pictures / 255
    if info.channels == 1:
        pixels = (pixels * luma).sum(-1, keepdim=True)
    rows = pixels.flatten(2)  # a row of pixels has one of each number for each place: three alone would be no vector
    return rows.sub_(mean).div_(std).unflatten(2, (width, -1))


@cache
def _constants(mean: Channels, std: Channels, width: int, device: torch.device) -> tuple[Tensor, Tensor, Tensor]:
    """Kept on the device: copied for each batch, they would make a GPU wait. Mean and std of a row of pixels, and LUMA."""
    one, other = (torch.tensor(values, device=device).repeat(width) for values in (mean, std))
    return one, other, torch.tensor(LUMA, device=device)


def moves(count: int, info: DataInfo, source: torch.Generator) -> Tensor:
    """How pictures are shifted down and right, 0 .. 2 pad, and whether each is mirrored: int64, (3, count), on the CPU."""
    shift = torch.randint(0, 2 * info.pad + 1, (2, count, 1), generator=source)
    mirrored = torch.rand(count, 1, generator=source) < 0.5 if info.flip else torch.zeros(count, 1)
    return torch.cat([shift.squeeze(2), mirrored.long().T])


def moved(pictures: Tensor, info: DataInfo, how: Tensor) -> Tensor:
    """Shift and mirror each picture as `moves` has it, black beyond the edge; normalised.

    Args:
        how: (3, B), where the pictures are.
    """
    large = pictures.device.type == "cpu" and pictures[:1].numel() >= LARGE
    return normalise((_copied if large else _gathered)(pictures, info, how), info)


def _gathered(pictures: Tensor, info: DataInfo, how: Tensor) -> Tensor:
    """All pixels at once, which is quick for small pictures and on a GPU."""
    count, height, width, _ = pictures.shape
    pad, (index, down, right) = info.pad, _counts((count, height, width), pictures.device)
    rows = how[0, :, None] + down  # (B, H), in the padded picture
    columns = how[1, :, None] + right
    if info.flip:
        columns = torch.where(how[2, :, None] > 0, columns.flip(1), columns)
    padded = torch.nn.functional.pad(pictures, (0, 0, pad, pad, pad, pad))
    return padded[index[:, None, None], rows[:, :, None], columns[:, None, :]]


def _copied(pictures: Tensor, info: DataInfo, how: Tensor) -> Tensor:
    """One picture after the other, a rectangle of each."""
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
