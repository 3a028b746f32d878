"""A part of a data set as one uint8 tensor on the device, shifted and mirrored batch by batch.

catalogue.py reads the data sets; stream.py handles sets too large for memory.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from engine.data.augment import generator, moved, moves, normalise
from engine.data.info import DataInfo, Split
from engine.errors import UserError
from engine.system import ranks

LEAST = 2
"""The fewest pictures to train on: batch norms take the variance of a batch."""


class TensorSplit:
    """One part of a data set, completely in memory.

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
        parts = [order[step * size : (step + 1) * size] for step in range(start, steps(len(self), size))]
        sources = (generator(seed, epoch, step) for step in range(start + 1, start + len(parts) + 1))
        drawn = (moves(len(part), self.info, source) for part, source in zip(parts, sources, strict=True))
        if self.device.type == "cuda" and parts:  # one copy for all steps, as each copy makes the GPU wait
            drawn = iter(torch.cat(list(drawn), 1).to(self.device).split(size, 1))
        for part, how in zip(parts, drawn, strict=True):
            mine = ranks.share(len(part))
            yield moved(self.images[part[mine]], self.info, how[:, mine]), self.labels[part[mine]]


@dataclass
class Data:
    """A training part, and the part for judging (`part`: "test" or "val")."""

    info: DataInfo
    train: Split
    test: Split
    part: str = "test"

    def set_normalisation(self, mean: Sequence[float], std: Sequence[float]) -> None:
        """Give both parts a network's mean and std; those of 1 channel make the pictures grey."""
        self.info = self.train.info = self.test.info = self.info.normalised(mean, std)


def steps(pictures: int, size: int) -> int:
    """Return the number of training batches in an epoch; a remainder too small for BN statistics is left out."""
    return max(1, pictures // size + (pictures % size >= max(2, size // 2)))


def held_out(total: int, count: int) -> tuple[Tensor, Tensor]:
    """Return the numbers of the training pictures and of those held out for --val, which are always the same.

    Raises:
        UserError: if fewer than LEAST would be left to train on (exit 2).
    """
    if count > total - LEAST:
        most = total - LEAST
        hint = f"give --val a number from 1 to {most}" if most > 0 else "leave --val out"
        raise UserError(f"--val {count}: of {total:,} training pictures at least {LEAST} have to stay", hint)
    order = torch.randperm(total, generator=torch.Generator().manual_seed(20_090_408))
    return order[count:].sort().values, order[:count].sort().values
