"""The description of a data set, and the interface of its parts; catalogue.py reads each set."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, fields, replace
from typing import Any, Protocol

from torch import Tensor

from engine.cli.datasets import FOLDERS, SHIFT

CLASSIFICATION, DETECTION = "classification", "detection"

Channels = tuple[float, ...]
"""One number for each channel: three for colour, one for grey."""


def in_flags(mean: Sequence[float], std: Sequence[float]) -> str:
    """Return a normalisation as its flags: `--mean 0.5,0.4,0.3 --std 0.3,0.2,0.25`."""
    return " ".join(f"{flag} {','.join(f'{n:g}' for n in each)}" for flag, each in (("--mean", mean), ("--std", std)))


@dataclass(frozen=True)
class DataInfo:
    """The description of a network's pictures, for checkpoints and tables.

    Args:
        name: the value of --dataset.
        label: the name in tables.
        classes: number of classes; for detection, without the background.
        mean, std: per channel, for pixels in [0, 1]; of length 1 if the network sees grey pictures.
        pad: largest random shift, in pixels.
        flip: whether training mirrors pictures.
        names: the classes' names, if the data set gives them.
        crop: the value of --crop: how pictures are cut, see crops.py.
        task: "classification" for a picture's class, "detection" for the objects in it.
    """

    name: str
    label: str
    classes: int
    image_size: int
    mean: Channels
    std: Channels
    pad: int = 4
    flip: bool | None = True  # None: an old file does not say; the same for names
    names: tuple[str, ...] | None = ()
    crop: str = SHIFT
    task: str = CLASSIFICATION

    @property
    def quoted(self) -> str:
        """The label inside a sentence: in quotes if the user's folder gave it."""
        return self.label if self.name not in FOLDERS else f'"{self.label}"'

    @classmethod
    def unknown(cls, classes: int, image_size: int = 32, told: tuple[Channels, Channels] | None = None) -> DataInfo:
        """Return the description for a file that does not name its data set.

        Args:
            told: mean and std, if the network's own code gives them.
        """
        mean, std = told or ((0.0,) * 3, (1.0,) * 3)
        return cls("unknown", "unknown", classes, image_size, mean, std)

    @classmethod
    def read(cls, values: dict[str, Any]) -> DataInfo:
        """Read a file's checked description; older files lack `pad`, `flip`, `names`, `crop` and `task`."""
        known = {field.name: values[field.name] for field in fields(cls) if field.name in values}
        lists: dict[str, Any] = {key: tuple(known[key]) for key in ("mean", "std", "names") if key in known}
        values = {"flip": None, "names": None, **known, **lists}
        return cls(**values)

    def to_dict(self) -> dict[str, Any]:
        """Return the form on disk.

        Fields that an old file lacks (None) are left out. So are the default crop and task, so that files of
        classifiers stay byte for byte the same.
        """
        held = {key: list(value) if isinstance(value, tuple) else value for key, value in vars(self).items()}
        meant = {"crop": SHIFT, "task": CLASSIFICATION}
        return {key: value for key, value in held.items() if value is not None and meant.get(key) != value}

    def normalised(self, mean: Sequence[float], std: Sequence[float]) -> DataInfo:
        """Return the data set with another mean and std, both of 3 channels, or both of 1 for grey.

        Raises:
            ValueError: for other numbers of channels.
        """
        if len(mean) != len(std) or len(mean) not in (1, 3):
            raise ValueError(f"a mean of {len(mean)} and a std of {len(std)} channels")
        return replace(self, mean=tuple(mean), std=tuple(std))

    @property
    def channels(self) -> int:
        """The channels a network sees: 3, or 1 for grey."""
        return len(self.mean)

    @property
    def boxes(self) -> bool:
        """Whether the task is detection."""
        return self.task == DETECTION

    @property
    def says_normalisation(self) -> bool:
        """Whether mean and std are more than placeholders."""
        return self.known or any(self.mean) or any(value != 1 for value in self.std)

    @property
    def known(self) -> bool:
        """Whether the data set is known."""
        return self.name != "unknown"


class Split(Protocol):
    """One part of a data set. A batch has pictures and their labels, or their objects (detection/split.py)."""

    info: DataInfo

    def __len__(self) -> int: ...

    def batches(self, size: int, order: Tensor | None = None) -> Iterator[tuple[Tensor, Any]]:
        """Yield unaltered pictures, float (B, info.channels, H, W), and labels (B,), in order or by `order`."""

    def training_batches(self, size: int, seed: int, epoch: int, start: int = 0) -> Iterator[tuple[Tensor, Any]]:
        """Yield this rank's share of each batch of an epoch, shuffled, shifted and mirrored.

        The pictures depend only on (seed, epoch), on any device.

        Args:
            start: the first step; skipping the steps before it costs no time.
        """


Part = tuple[Tensor, Tensor]
"""Pictures, uint8 (N, H, W, 3), and their labels, int64 (N,)."""
Parts = tuple[Part, Part, DataInfo]
"""What a reader returns: the training part, the test part, and their description."""
