"""Folders of pictures too large for memory: read by a torch DataLoader, with the interface of TensorSplit."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import torch
from torch import Tensor
from torch.utils.data import DataLoader, Dataset

from engine.data.augment import generator, moved, moves, normalise
from engine.data.image_folder import Folder
from engine.data.info import DataInfo
from engine.data.pictures import read_all, read_picture
from engine.data.pixels import statistics
from engine.data.splits import Data, held_out, steps
from engine.system import ranks
from engine.system.signals import ignore

STATISTICS_PICTURES = 10_000


class _Pictures(Dataset):
    def __init__(self, files: list[tuple[Path, int]], size: int) -> None:
        self.files, self.size = files, size

    def __len__(self) -> int:
        return len(self.files)

    def __getitem__(self, index: int) -> tuple[Tensor, int]:
        path, label = self.files[index]
        return torch.from_numpy(read_picture(path, self.size).copy()), label


class StreamSplit:
    """One part of a data set, read as it is needed; augmentation as in TensorSplit, so workers change nothing."""

    def __init__(self, files: list[tuple[Path, int]], info: DataInfo, device: torch.device, workers: int) -> None:
        self.pictures = _Pictures(files, info.image_size)
        self.info, self.device, self.workers = info, device, workers

    def __len__(self) -> int:
        return len(self.pictures)

    def _read(self, batches: list[list[int]]) -> Iterator[tuple[Tensor, Tensor]]:
        loader = DataLoader(
            self.pictures,
            batch_sampler=batches,
            num_workers=self.workers,
            worker_init_fn=ignore,  # a terminal signals the whole group, and the batch under way is still wanted
            generator=torch.Generator(),  # else it draws from torch's own, once more in a run that was resumed
        )
        done = 0
        try:
            for images, labels in loader:
                yield images.to(self.device), labels.to(self.device)
                done += 1
        except RuntimeError:  # a worker's UserError arrives as this; the pictures of its batch say what it was
            for index in batches[done] if done < len(batches) else ():
                self.pictures[index]
            raise

    def batches(self, size: int, order: Tensor | None = None) -> Iterator[tuple[Tensor, Tensor]]:
        index = list(range(len(self))) if order is None else order.tolist()
        for images, labels in self._read([index[start : start + size] for start in range(0, len(index), size)]):
            yield normalise(images, self.info), labels

    def training_batches(self, size: int, seed: int, epoch: int, start: int = 0) -> Iterator[tuple[Tensor, Tensor]]:
        order = torch.randperm(len(self), generator=generator(seed, epoch)).tolist()
        parts = [order[step * size : (step + 1) * size] for step in range(start, steps(len(self), size))]
        shares = [ranks.share(len(part)) for part in parts]
        own = [part[mine] for part, mine in zip(parts, shares, strict=True)]
        for step, (images, labels) in enumerate(self._read(own)):
            how = moves(len(parts[step]), self.info, generator(seed, epoch, start + step + 1))[:, shares[step]]
            yield moved(images, self.info, how.to(self.device)), labels


def load(folder: Folder, device: torch.device, size: int, val: int, workers: int, flip: bool | None = None) -> Data:
    """A folder as Data; mean and std come from up to 10,000 of its training pictures.

    Args:
        flip: as in catalogue.load.

    Raises:
        UserError: exit 2 if --val leaves no training pictures, exit 4 for damaged ones.
    """
    train, test, info = folder.train, folder.test, folder.info(size)
    every = torch.randperm(len(train), generator=torch.Generator().manual_seed(0))
    sample = [train[i] for i in every[:STATISTICS_PICTURES].tolist()]
    mean, std = statistics(read_all(sample, size, info.label))
    info = replace(info, mean=mean, std=std, flip=info.flip if flip is None else flip)
    if val:
        train, test = ([train[i] for i in numbers.tolist()] for numbers in held_out(len(train), val))
    parts = [StreamSplit(files, info, device, workers) for files in (train, test)]
    return Data(info, parts[0], parts[1], "val" if val else "test")
