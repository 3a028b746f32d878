"""Folders of pictures too large for memory, read by a torch DataLoader, with the interface of TensorSplit."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any, Protocol

import numpy as np
import torch
from torch import Tensor
from torch.utils.data import Dataset

from engine.cli.datasets import IMAGENET, SHIFT
from engine.data import crops
from engine.data.augment import generator, moved, moves, normalise
from engine.data.image_folder import Folder
from engine.data.info import Channels, DataInfo
from engine.data.many_files import announced, loaded
from engine.data.paths import Paths
from engine.data.pictures import read_part, read_picture
from engine.data.pixels import counts, of_counts
from engine.data.splits import Data, held_out, steps
from engine.system import ranks

STATISTICS_PICTURES, BATCH = 10_000, 64
Index = int | tuple[int, int]
"""A picture's number for its middle, or its number and the seed of a random part."""


class Readable(Protocol):
    """A part whose unaltered pictures can be read."""

    info: DataInfo

    def __len__(self) -> int: ...

    def read(self, batches: Any) -> Iterator[tuple[Tensor, Any]]: ...


class _Pictures(Dataset):
    """Picture files and their labels, both in arrays; see paths.py."""

    def __init__(self, files: list[tuple[Path, int]], info: DataInfo) -> None:
        self.info, self._paths = info, Paths(path for path, _ in files)
        self._labels = np.array([label for _, label in files], np.int64)

    def __len__(self) -> int:
        return len(self._labels)

    def __getitem__(self, index: Index) -> tuple[Tensor, int]:
        number, seed = index if isinstance(index, tuple) else (index, None)
        path, info = self._paths[number], self.info
        if seed is None:
            picture = read_picture(path, info.image_size, info.crop)
        else:
            picture = read_part(path, info.image_size, seed, bool(info.flip))
        return torch.from_numpy(picture.copy()), int(self._labels[number])


class _Seeded(Sequence[list[Index]]):
    """This rank's share of each batch, with a seed for the random part of each picture.

    A batch is made on demand, as all batches of a million pictures would take 150 MB.
    """

    def __init__(self, parts: list[list[int]], source: Callable[[int], torch.Generator]) -> None:
        self.parts, self.source = parts, source

    def __len__(self) -> int:
        return len(self.parts)

    def __getitem__(self, step: Any) -> Any:
        part = self.parts[step]
        mine = ranks.share(len(part))
        seeds = crops.seeds(len(part), self.source(step)).tolist()
        return list(zip(part[mine], seeds[mine], strict=True))


class StreamSplit:
    """One part of a data set, read on demand and augmented like TensorSplit; its batches do not depend on `workers`."""

    def __init__(self, files: list[tuple[Path, int]], info: DataInfo, device: torch.device, workers: int) -> None:
        self.pictures = _Pictures(files, info)
        self.info, self.device, self.workers = info, device, workers

    def __len__(self) -> int:
        return len(self.pictures)

    def read(self, batches: Sequence[Sequence[Index]]) -> Iterator[tuple[Tensor, Tensor]]:
        """Yield unaltered pictures, uint8 (B, H, W, 3), and their labels."""
        for images, labels in loaded(self.pictures, batches, self.workers, self.device.type == "cuda"):
            yield images.to(self.device, non_blocking=True), labels.to(self.device, non_blocking=True)

    def batches(self, size: int, order: Tensor | None = None) -> Iterator[tuple[Tensor, Tensor]]:
        index = list(range(len(self))) if order is None else order.tolist()
        for images, labels in self.read([index[start : start + size] for start in range(0, len(index), size)]):
            yield normalise(images, self.info), labels

    def training_batches(self, size: int, seed: int, epoch: int, start: int = 0) -> Iterator[tuple[Tensor, Tensor]]:
        order = torch.randperm(len(self), generator=generator(seed, epoch)).tolist()
        parts = [order[step * size : (step + 1) * size] for step in range(start, steps(len(self), size))]
        source = partial(generator, seed, epoch)
        if self.info.crop == IMAGENET:
            for images, labels in self.read(_Seeded(parts, lambda step: source(start + step + 1))):
                yield normalise(images, self.info), labels
            return
        shares = [ranks.share(len(part)) for part in parts]
        own = [part[mine] for part, mine in zip(parts, shares, strict=True)]
        for step, (images, labels) in enumerate(self.read(own)):
            how = moves(len(parts[step]), self.info, source(start + step + 1))[:, shares[step]]
            yield moved(images, self.info, how.to(self.device)), labels


def load(
    folder: Folder,
    device: torch.device,
    size: int,
    val: int,
    workers: int,
    flip: bool | None = None,
    crop: str = SHIFT,
) -> Data:
    """Open a folder as Data; mean and std come from up to 10,000 of its training pictures.

    Args:
        flip, crop: as in catalogue.load.

    Raises:
        UserError: if --val leaves no training pictures (exit 2); for damaged ones (exit 4).
    """
    train, test, info = folder.train, folder.test, replace(folder.info(size), crop=crop)
    mean, std = statistics(StreamSplit(train, info, torch.device("cpu"), workers))
    info = replace(info, mean=mean, std=std, flip=info.flip if flip is None else flip)
    if val:
        train, test = ([train[i] for i in numbers.tolist()] for numbers in held_out(len(train), val))
    parts = [StreamSplit(files, info, device, workers) for files in (train, test)]
    return Data(info, parts[0], parts[1], "val" if val else "test")


def statistics(part: Readable, item: Callable[[int], Any] = int) -> tuple[Channels, Channels]:
    """Measure mean and standard deviation on up to 10,000 pictures, always the same ones, with one batch in memory.

    Args:
        item: turns a picture's number into an index for `part.read`.
    """
    chosen = torch.randperm(len(part), generator=torch.Generator().manual_seed(0))[:STATISTICS_PICTURES].tolist()
    batches = [[*map(item, chosen[start : start + BATCH])] for start in range(0, len(chosen), BATCH)]
    found = torch.zeros(3, 256, dtype=torch.int64)
    for _, (images, _) in zip(announced(batches, len(chosen), part.info.label), part.read(batches), strict=True):
        found += counts(images)
    return of_counts(found)
