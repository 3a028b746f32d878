"""Pictures as one uint8 tensor on the device, cropped and flipped a batch at a time.

Which data sets there are and how each is read: datasets.py. Sets too large for memory: stream.py.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from functools import cache
from typing import Protocol

import torch
from torch import Tensor

Channels = tuple[float, float, float]


@dataclass(frozen=True)
class DataInfo:
    """What a checkpoint and a table must say about the pictures a network was trained on.

    `name` is the value of --dataset, `label` what tables print; `mean` and `std` are per channel,
    of pixels in [0, 1]; `pad` is the widest random shift, `flip` whether pictures are mirrored;
    `names` are those of the classes, where folders tell them.
    """

    name: str
    label: str
    classes: int
    image_size: int
    mean: Channels
    std: Channels
    pad: int = 4
    flip: bool = True
    names: tuple[str, ...] = ()


class Split(Protocol):
    """One part of a data set, wherever it is kept."""

    info: DataInfo

    def __len__(self) -> int: ...

    def batches(self, size: int, order: Tensor | None = None) -> Iterator[tuple[Tensor, Tensor]]:
        """The pictures in order (or those of `order`, numbers), unaltered: (B, 3, H, W) float, and their labels (B,)."""

    def training_batches(self, size: int, seed: int, epoch: int, start: int = 0) -> Iterator[tuple[Tensor, Tensor]]:
        """One epoch, shuffled, shifted and mirrored; a pure function of (seed, epoch), on any device.

        Args:
            start: the step to begin with; those before it cost nothing.
        """


class TensorSplit:
    """One part of a data set, whole in memory.

    Args:
        images: uint8, (N, H, W, 3): channels last, so that a batch is one gather.
        labels: int64, (N,).
    """

    def __init__(self, images: Tensor, labels: Tensor, info: DataInfo, device: torch.device) -> None:
        self.images, self.labels = images.to(device), labels.to(device)
        self.info, self.device = info, device

    def __len__(self) -> int:
        return len(self.labels)

    def batches(self, size: int, order: Tensor | None = None) -> Iterator[tuple[Tensor, Tensor]]:
        for start in range(0, len(self) if order is None else len(order), size):
            part = slice(start, start + size) if order is None else order[start : start + size].to(self.device)
            yield normalise(self.images[part], self.info), self.labels[part]

    def training_batches(self, size: int, seed: int, epoch: int, start: int = 0) -> Iterator[tuple[Tensor, Tensor]]:
        order = torch.randperm(len(self), generator=generator(seed, epoch)).to(self.device)
        for step in range(start, steps(len(self), size)):
            part = order[step * size : (step + 1) * size]
            source = generator(seed, epoch, step + 1)
            yield augment(self.images[part], self.info, source), self.labels[part]


@dataclass
class Data:
    """A training part and the part that accuracy is measured on (`judged`: "test", or "val")."""

    info: DataInfo
    train: Split
    test: Split
    judged: str = "test"

    def normalised(self, mean: Sequence[float], std: Sequence[float]) -> Data:
        """The same pictures, with the mean and std (of 3 channels) that a network was trained with."""
        red, green, blue = mean
        info = replace(self.info, mean=(red, green, blue), std=(std[0], std[1], std[2]))
        self.info = self.train.info = self.test.info = info
        return self


def steps(pictures: int, size: int) -> int:
    """Training batches in an epoch; a remainder too small for BN statistics is left out of it."""
    return max(1, pictures // size + (pictures % size >= max(2, size // 2)))


def generator(seed: int, epoch: int, step: int = 0) -> torch.Generator:
    """A CPU generator that depends on nothing but its place in the run, so any step can be redone alone."""
    mixed = (seed * 1_000_003 + epoch) * 1_000_003 + step
    return torch.Generator().manual_seed(mixed % 2**63)


def normalise(pictures: Tensor, info: DataInfo) -> Tensor:
    """uint8 (B, H, W, 3) -> float32 (B, 3, H, W) in channels_last memory, mean 0 and std 1 per channel."""
    mean, std = _constants(info.mean, info.std, pictures.device)
    return ((pictures / 255 - mean) / std).permute(0, 3, 1, 2)


@cache
def _constants(mean: Channels, std: Channels, device: torch.device) -> tuple[Tensor, Tensor]:
    """Kept on the device: copied for each batch, they would make a GPU wait."""
    return torch.tensor(mean, device=device), torch.tensor(std, device=device)


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
    return normalise(padded[index, rows.to(device)[:, :, None], columns.to(device)[:, None, :]], info)


def held_out(total: int, count: int) -> tuple[Tensor, Tensor]:
    """Numbers of the pictures to train on and of those held out for --val: always the same, so choices made on them agree."""
    order = torch.randperm(total, generator=torch.Generator().manual_seed(20_090_408))
    return order[count:].sort().values, order[:count].sort().values
