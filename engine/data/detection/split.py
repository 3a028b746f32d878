"""One part of a detection set, as batches of pictures and their objects; augment.py augments them."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import torch
from torch import Tensor
from torch.utils.data import Dataset

from engine.data.augment import generator, normalise
from engine.data.detection.augment import augmented, place
from engine.data.detection.objects import Objects
from engine.data.detection.sources import Source
from engine.data.info import DataInfo
from engine.data.many_files import loaded
from engine.data.splits import steps
from engine.system import ranks

Targets = list[dict[str, Tensor]]
Item = tuple[int, int | None]
"""The number of a picture, and the seed of its augmentation; None leaves it unaltered."""
Loaded = tuple[Tensor, list[int], dict[str, Tensor]]
"""Pictures, their numbers of objects, and one tensor of all objects for each field, so that processes exchange few
tensors."""


@dataclass
class _Items(Dataset):
    """Single pictures with their objects, augmented if a seed is given."""

    source: Source
    objects: Objects
    info: DataInfo

    def __len__(self) -> int:
        return len(self.objects)

    def __getitem__(self, item: Item) -> tuple[Tensor, dict[str, Tensor]]:
        index, seed = item
        found, size = self.objects.of(index), self.info.image_size
        if seed is None:
            return self.source.scaled(index, size), found
        picture, alone = self.source.whole(index, size), ~found["crowd"]  # crowds are not trained on
        height, width, _ = picture.shape
        boxes = found["boxes"][alone] * (torch.tensor([width, height] * 2) / size)
        picture, boxes, labels = augmented(picture, boxes, found["labels"][alone], self.info, seed)
        return picture, {"boxes": boxes, "labels": labels}


def _together(items: list[tuple[Tensor, dict[str, Tensor]]]) -> Loaded:
    pictures, found = zip(*items, strict=True)
    fields = {name: torch.cat([each[name] for each in found]) for name in found[0]}
    return torch.stack(pictures), [len(each["labels"]) for each in found], fields


class DetectionSplit:
    """One part of a detection set.

    A batch is (images, targets). Images are float32 (B, info.channels, S, S), normalised, in channels_last memory.
    Targets are a list of B dicts: "boxes", float32 (n, 4), x1, y1, x2, y2 in pixels of the S x S picture, and "labels",
    int64 (n,), from 0, without a background class; n may be 0. `batches` adds "crowd", bool (n,), and "area",
    float32 (n,), in square pixels; `training_batches` leaves crowds out.

    Args:
        workers: number of processes that read and augment pictures; 0 uses this process.
    """

    def __init__(self, source: Source, objects: Objects, info: DataInfo, device: torch.device, workers: int) -> None:
        self.source, self.objects = source, objects
        self.info, self.device, self.workers = info, device, workers

    def __len__(self) -> int:
        return len(self.objects)

    def batches(self, size: int, order: Tensor | None = None) -> Iterator[tuple[Tensor, Targets]]:
        """Yield scaled, otherwise unaltered pictures, in order or as `order` numbers them."""
        items: list[Item] = [(index, None) for index in (range(len(self)) if order is None else order.tolist())]
        for images, targets in self.read([items[start : start + size] for start in range(0, len(items), size)]):
            yield normalise(images, self.info), targets

    def training_batches(self, size: int, seed: int, epoch: int, start: int = 0) -> Iterator[tuple[Tensor, Targets]]:
        """Yield this rank's share of an epoch, augmented by (seed, epoch, step, place in the batch), as in Split."""
        order = torch.randperm(len(self), generator=generator(seed, epoch)).tolist()
        batches: list[list[Item]] = []
        for step in range(start, steps(len(self), size)):
            part = order[step * size : (step + 1) * size]
            items: list[Item] = [(index, place(seed, epoch, step + 1, number)) for number, index in enumerate(part)]
            batches.append(items[ranks.share(len(items))])
        for images, targets in self.read(batches):
            yield normalise(images, self.info), targets

    def read(self, batches: list[list[Item]]) -> Iterator[tuple[Tensor, Targets]]:
        """Yield pictures before normalisation, uint8 (B, S, S, 3), and their targets, on the device.

        Raises:
            UserError: naming the picture that cannot be read (exit 4).
        """
        there = _Items(self.source, self.objects, self.info)
        pinned = self.device.type == "cuda"
        for images, counts, fields in loaded(there, batches, self.workers, pinned, _together):
            yield images.to(self.device, non_blocking=True), self._targets(counts, fields)

    def _targets(self, counts: list[int], fields: dict[str, Tensor]) -> Targets:
        parts = {name: every.to(self.device, non_blocking=True).split(counts) for name, every in fields.items()}
        return [dict(zip(parts, each, strict=True)) for each in zip(*parts.values(), strict=True)]
