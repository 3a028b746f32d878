"""One batch of pictures, normalised, shifted and mirrored; random numbers depend on the place in the run alone."""

from __future__ import annotations

from functools import cache

import torch
from torch import Tensor

from engine.data.info import Channels, DataInfo

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
    mean, std, luma = _constants(info.mean, info.std, pictures.device)
    pixels = pictures / 255
    if info.channels == 1:
        pixels = (pixels * luma).sum(-1, keepdim=True)
    return ((pixels - mean) / std).permute(0, 3, 1, 2)


@cache
def _constants(mean: Channels, std: Channels, device: torch.device) -> tuple[Tensor, Tensor, Tensor]:
    """Kept on the device: copied for each batch, they would make a GPU wait."""
    return torch.tensor(mean, device=device), torch.tensor(std, device=device), torch.tensor(LUMA, device=device)


def augment(pictures: Tensor, info: DataInfo, source: torch.Generator) -> Tensor:
    """Shift each picture by up to `pad` pixels (black beyond the edge) and mirror half of them."""
    count, height, width, _ = pictures.shape
    pad, device = info.pad, pictures.device
    shift = torch.randint(0, 2 * pad + 1, (2, count, 1), generator=source)
    rows = shift[0] + torch.arange(height)  # (B, H), in the padded picture
    columns = shift[1] + torch.arange(width)
    if info.flip:
        mirrored = torch.rand(count, 1, generator=source) < 0.5
        columns = torch.where(mirrored, columns.flip(1), columns)
    padded = torch.nn.functional.pad(pictures, (0, 0, pad, pad, pad, pad))
    index = torch.arange(count, device=device)[:, None, None]
    rows, columns = _brought(torch.cat([rows, columns], 1), device).split([height, width], 1)
    return normalise(padded[index, rows[:, :, None], columns[:, None, :]], info)


def _brought(numbers: Tensor, device: torch.device) -> Tensor:
    """Numbers of the CPU on a device. A GPU is not waited for, which a copy from memory that may be paged out would do."""
    return numbers.pin_memory().to(device, non_blocking=True) if device.type == "cuda" else numbers.to(device)
