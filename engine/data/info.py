"""What a data set is: its description, and the interface of its parts. How each one is read: catalogue.py."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, fields, replace
from typing import Any, Protocol

from torch import Tensor

from engine.cli.datasets import SHIFT

CLASSIFICATION, DETECTION = "classification", "detection"

Channels = tuple[float, ...]
"""A number for each channel: three of a coloured picture, one of a gray one."""


@dataclass(frozen=True)
class DataInfo:
    """What a checkpoint and a table must say about the pictures a network was trained on.

    `name` is the value of --dataset, `label` what tables print; `mean` and `std` are per channel,
    of pixels in [0, 1], and of length 1 where pictures are shown in gray; `pad` is the widest random shift, `flip` whether pictures are mirrored;
    `names` are those of the classes, where folders tell them; `crop` is the value of --crop: how pictures are cut, see crops.py; `task`
    is what is asked of a picture: its class ("classification"), or the objects in it ("detection"), whose classes are then counted
    without the background.
    """

    name: str
    label: str
    classes: int
    image_size: int
    mean: Channels
    std: Channels
    pad: int = 4
    flip: bool | None = True  # None: an old file does not say; of names, too
    names: tuple[str, ...] | None = ()
    crop: str = SHIFT
    task: str = CLASSIFICATION

    @classmethod
    def unknown(cls, classes: int, image_size: int = 32, told: tuple[Channels, Channels] | None = None) -> DataInfo:
        """That of a file that cannot say what it was trained on.

        Args:
            told: mean and std, where the network's own code says them.
        """
        mean, std = told or ((0.0,) * 3, (1.0,) * 3)
        return cls("unknown", "unknown", classes, image_size, mean, std)

    @classmethod
    def read(cls, values: dict[str, Any]) -> DataInfo:
        """What a file says of its data set, checked before; older ones leave out `pad`, `flip`, `names`, `crop` and `task`."""
        known = {field.name: values[field.name] for field in fields(cls) if field.name in values}
        lists: dict[str, Any] = {key: tuple(known[key]) for key in ("mean", "std", "names") if key in known}
        values = {"flip": None, "names": None, **known, **lists}
        return cls(**values)

    def to_dict(self) -> dict[str, Any]:
        """What a file says of it. Left out is what an old file does not say (None), and a crop and a task that files mean where they
        say none: what is written of a classifier stays the same.
        """
        held = {key: list(value) if isinstance(value, tuple) else value for key, value in vars(self).items()}
        meant = {"crop": SHIFT, "task": CLASSIFICATION}
        return {key: value for key, value in held.items() if value is not None and meant.get(key) != value}

    def normalised(self, mean: Sequence[float], std: Sequence[float]) -> DataInfo:
        """The same data set with another mean and std, both of 3 channels, or both of 1: its pictures shown in gray."""
        if len(mean) != len(std) or len(mean) not in (1, 3):
            raise ValueError(f"a mean of {len(mean)} and a std of {len(std)} channels")
        return replace(self, mean=tuple(mean), std=tuple(std))

    @property
    def channels(self) -> int:
        """Of the pictures that networks are shown: 3, or 1 in gray."""
        return len(self.mean)

    @property
    def boxes(self) -> bool:
        """Whether objects are looked for in its pictures."""
        return self.task == DETECTION

    @property
    def says_normalisation(self) -> bool:
        """Whether mean and std are more than the place of unknown ones."""
        return self.known or any(self.mean) or any(value != 1 for value in self.std)

    @property
    def known(self) -> bool:
        """Whether it says what the pictures were."""
        return self.name != "unknown"


class Split(Protocol):
    """One part of a data set, wherever it is kept. A batch is pictures, and for each its label, or its objects: detection/split.py."""

    info: DataInfo

    def __len__(self) -> int: ...

    def batches(self, size: int, order: Tensor | None = None) -> Iterator[tuple[Tensor, Any]]:
        """The pictures in order (or those of `order`, numbers), unaltered: (B, info.channels, H, W) float, and their labels (B,)."""

    def training_batches(self, size: int, seed: int, epoch: int, start: int = 0) -> Iterator[tuple[Tensor, Any]]:
        """One epoch, shuffled, shifted and mirrored; a pure function of (seed, epoch), on any device. Of each batch, this rank's share.

        Args:
            start: the step to begin with; those before it cost nothing.
        """


Part = tuple[Tensor, Tensor]
Read = tuple[Part, Part, DataInfo]
