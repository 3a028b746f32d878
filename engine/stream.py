"""Folders of pictures too large for memory: read by a torch DataLoader, with the interface of TensorSplit."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import torch
from torch import Tensor
from torch.utils.data import DataLoader, Dataset

from engine.data import Data, DataInfo, augment, generator, normalise, steps
from engine.datasets import folder_files, folder_info, read_picture, statistics
from engine.errors import UserError

STATISTICS_PICTURES = 10_000


def bytes_needed(root: Path, size: int) -> int:
    """Memory that all pictures of a folder would take at side `size`."""
    count = sum(len(folder_files(root, part)[0]) for part in ("train", "test"))
    return count * size * size * 3


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

    def __init__(
        self, files: list[tuple[Path, int]], info: DataInfo, device: torch.device, workers: int
    ) -> None:
        self.pictures = _Pictures(files, info.image_size)
        self.info, self.device, self.workers = info, device, workers

    def __len__(self) -> int:
        return len(self.pictures)

    def _read(self, batches: list[list[int]]) -> Iterator[tuple[Tensor, Tensor]]:
        loader = DataLoader(self.pictures, batch_sampler=batches, num_workers=self.workers)
        for images, labels in loader:
            yield images.to(self.device), labels.to(self.device)

    def batches(self, size: int) -> Iterator[tuple[Tensor, Tensor]]:
        index = list(range(len(self)))
        for images, labels in self._read(
            [index[start : start + size] for start in range(0, len(self), size)]
        ):
            yield normalise(images, self.info), labels

    def training_batches(self, size: int, seed: int, epoch: int) -> Iterator[tuple[Tensor, Tensor]]:
        order = torch.randperm(len(self), generator=generator(seed, epoch)).tolist()
        parts = [order[step * size : (step + 1) * size] for step in range(steps(len(self), size))]
        for step, (images, labels) in enumerate(self._read(parts)):
            yield augment(images, self.info, generator(seed, epoch, step + 1)), labels


def load(root: Path, device: torch.device, size: int, val: int, workers: int) -> Data:
    """A folder as Data; mean and std come from up to 10,000 of its training pictures.

    Raises:
        UserError: exit 2 if --val leaves no training pictures, exit 4 for missing ones.
    """
    train, names = folder_files(root, "train")
    test, _ = folder_files(root, "test")
    judged = "test"
    order = torch.randperm(len(train), generator=torch.Generator().manual_seed(20_090_408)).tolist()
    if val:
        if val >= len(train):
            raise UserError(f"--val {val}: only {len(train)} training pictures", "hold out fewer")
        train, test, judged = [train[i] for i in order[val:]], [train[i] for i in order[:val]], "val"
    sample = [train[i % len(train)] for i in order[:STATISTICS_PICTURES]]
    pictures = torch.stack([torch.from_numpy(read_picture(path, size).copy()) for path, _ in sample])
    mean, std = statistics(pictures)
    info = replace(folder_info(root, len(names), size), mean=mean, std=std)
    return Data(
        info,
        StreamSplit(train, info, device, workers),
        StreamSplit(test, info, device, workers),
        judged,
    )
