"""Folders of pictures, DIR/train/<class>/* and DIR/test/<class>/*, or as ImageNet is laid out DIR/val/<class>/*. One picture's file is read in pictures.py."""

from __future__ import annotations

import json
from dataclasses import dataclass, replace
from pathlib import Path

import torch

from engine.cli.datasets import IMAGENET, SHIFT
from engine.data.crops import SIDE
from engine.data.info import DataInfo, Read
from engine.data.many_files import workers_for
from engine.data.pictures import decode, read_all
from engine.data.pixels import statistics, widest_shift
from engine.errors import BAD_DATA, UserError

CIFAR10_COPY = "CIFAR-10 (JPEG copy)"
KNOWN = {"cifar10-jpeg": CIFAR10_COPY}
"""Labels of folders that may lie without a dataset.json, by their names."""

DESCRIPTION_BYTES, LABEL_LENGTH = 10_000, 100
PICTURE_SUFFIXES = {".jpg", ".jpeg", ".png", ".ppm", ".bmp", ".pgm", ".tif", ".tiff", ".webp"}


def folder_files(root: Path, part: str) -> tuple[list[tuple[Path, int]], list[str]]:
    """The pictures of `root/part/<class>/*` with their class numbers, and the class names.

    Names that begin with a dot are not the user's, but some program's: .ipynb_checkpoints, ._1.png.

    Raises:
        UserError: exit 4, naming the folder that is missing or empty.
    """
    folder = root / part
    names = sorted(p.name for p in folder.iterdir() if _is_class(p)) if folder.is_dir() else []
    files = [
        (path, number)
        for number, name in enumerate(names)
        for path in sorted((folder / name).iterdir())
        if path.suffix.lower() in PICTURE_SUFFIXES and not path.name.startswith(".")
    ]
    if not files:
        raise UserError(
            f"no pictures under {folder}/<class>/",
            "--dataset imagefolder wants DIR/train/<class>/* and DIR/test/<class>/* (or val/), DIR given by --data",
            BAD_DATA,
        )
    for number in bare(files, names):
        raise UserError(
            f"no pictures under {folder / names[number]}/",
            f"put some there ({' '.join(sorted(PICTURE_SUFFIXES))}), or take its class out of train/ and {tested(root)}/",
            BAD_DATA,
        )
    return files, names


def bare(files: list[tuple[Path, int]], names: list[str]) -> list[int]:
    """The numbers of classes without pictures."""
    return sorted(set(range(len(names))) - {number for _, number in files})


def _is_class(path: Path) -> bool:
    return path.is_dir() and not path.name.startswith(".")


def tested(root: Path) -> str:
    """The part that is judged on: test, or where there is none val, as ImageNet has it."""
    return "val" if (root / "val").is_dir() and not (root / "test").is_dir() else "test"


OF_YOLO = ("images", "labels")
"""What stands below train/ in a folder of YOLO's."""


def has_folders(root: Path) -> bool:
    """Whether it looks like a folder of the user's pictures: train/<class>/ and test/<class>/, or val/<class>/."""
    try:
        return all(
            any(_is_class(place) and place.name not in OF_YOLO for place in (root / part).iterdir())
            for part in ("train", tested(root))
        )
    except OSError:
        return False


@dataclass(frozen=True)
class Folder:
    """What lies in a folder of pictures, listed once: the files of both parts with their class numbers, the classes."""

    label: str
    train: list[tuple[Path, int]]
    test: list[tuple[Path, int]]
    names: list[str]
    tested: str = "test"
    """What the folder of the part that is judged on is called."""

    def native_size(self, crop: str = SHIFT) -> int:
        """The side that pictures get without --image_size: the first one's, at most 224; by ImageNet's recipe 224."""
        return SIDE if crop == IMAGENET else min(*decode(self.train[0][0]).size, SIDE)

    def bytes_needed(self, size: int) -> int:
        """Memory that all pictures would take at side `size`."""
        return (len(self.train) + len(self.test)) * size * size * 3

    def info(self, size: int) -> DataInfo:
        """DataInfo without statistics."""
        zero, one = (0.0,) * 3, (1.0,) * 3
        names = tuple(self.names)
        return DataInfo("imagefolder", self.label, len(names), size, zero, one, widest_shift(size), names=names)


def listed(root: Path) -> Folder:
    """List a folder of pictures.

    Raises:
        UserError: exit 4 if a part is missing, their classes differ, or there is only one; as `label`.
    """
    other = tested(root)
    (train, names), (test, found) = folder_files(root, "train"), folder_files(root, other)
    for odd in sorted({*names} ^ {*found}):
        where = "train" if odd in names else other
        text = f"{root}/train and {root}/{other} hold different classes: {odd} is in {where}"
        raise UserError(f"{text} alone", "make their folders agree", BAD_DATA)
    if len(names) < 2:
        text = f"{root} holds pictures of one class, {names[0]}: training needs at least two classes"
        raise UserError(text, f"make a folder for each class: DIR/train/<class>/* and DIR/{other}/<class>/*", BAD_DATA)
    return Folder(label(root), train, test, names, other)


def label(root: Path) -> str:
    """What tables call a folder of pictures: the label of its dataset.json, else its own name.

    Raises:
        UserError: exit 4 for a dataset.json of another form.
    """
    path, name = root / "dataset.json", root.resolve().name
    if not path.exists():
        return KNOWN.get(name, name)
    try:
        with path.open("rb") as file:
            content = file.read(DESCRIPTION_BYTES + 1)
        if len(content) > DESCRIPTION_BYTES:
            raise ValueError(f"it has more than {DESCRIPTION_BYTES:,} bytes")
        said = json.loads(content)
        found = said.get("label") if isinstance(said, dict) else None
        if not isinstance(found, str) or not found.strip() or not found.isprintable() or len(found) > LABEL_LENGTH:
            raise ValueError(f"it has no label, a line of at most {LABEL_LENGTH} characters")
    except (OSError, ValueError, RecursionError) as fault:
        what = fault.strerror if isinstance(fault, OSError) else fault
        raise UserError(
            f"cannot read {path}: {what}", 'write {"label": "NAME"} in it, or remove it', BAD_DATA
        ) from fault
    return found.strip()


def read_folder(folder: Folder, size: int, workers: int = 2) -> Read:
    """All pictures of a folder in memory; mean and std come from its training part.

    Args:
        workers: 0: no processes beside this one.
    """
    info, files = folder.info(size), [*folder.train, *folder.test]
    pictures = read_all(files, size, info.label, workers_for(len(files), workers))
    labels = torch.tensor([number for _, number in files])
    count = len(folder.train)
    mean, std = statistics(pictures[:count])
    info = replace(info, mean=mean, std=std)
    return (pictures[:count], labels[:count]), (pictures[count:], labels[count:]), info
