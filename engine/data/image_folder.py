"""Folders of pictures: DIR/train/<class>/* and DIR/test/<class>/*, or DIR/val/<class>/* as in ImageNet.

pictures.py reads one picture's file.
"""

from __future__ import annotations

import json
from dataclasses import dataclass, replace
from pathlib import Path

import torch

from engine.cli.datasets import IMAGENET, SHIFT
from engine.data.crops import SIDE
from engine.data.info import DataInfo, Parts
from engine.data.listing import PICTURE_SUFFIXES, check_regular, entries, files_under, say_left_out
from engine.data.many_files import workers_for
from engine.data.names import class_names, is_line
from engine.data.pictures import decode, read_all
from engine.data.pixels import statistics, widest_shift
from engine.errors import BAD_DATA, UserError

CIFAR10_COPY = "CIFAR-10 (JPEG copy)"
KNOWN = {"cifar10-jpeg": CIFAR10_COPY}
"""Labels of known folders, by name, for folders without a dataset.json."""

DESCRIPTION_BYTES, LABEL_LENGTH = 10_000, 100


def folder_files(root: Path, part: str) -> tuple[list[tuple[Path, int]], list[str]]:
    """List the pictures under `root/part/<class>` with their class numbers, and the class names.

    A notice counts other files; see listing.files_under.

    Raises:
        UserError: naming the missing or empty folder (exit 4).
    """
    folder = root / part
    there = entries(folder) if folder.is_dir() else []
    names, others = [p.name for p in there if p.is_dir()], [p for p in there if not p.is_dir()]
    files: list[tuple[Path, int]] = []
    for number, name in enumerate(names):
        taken, more = files_under(folder / name, PICTURE_SUFFIXES)
        files += [(path, number) for path in taken]
        others += more
    if not files:
        raise UserError(
            f"no pictures under {folder}/<class>/",
            "--dataset imagefolder needs DIR/train/<class>/* and DIR/test/<class>/* (or val/), with DIR from --data",
            BAD_DATA,
        )
    for number in bare(files, names):
        raise UserError(
            f"no pictures under {folder / names[number]}/",
            f"add some ({' '.join(sorted(PICTURE_SUFFIXES))}), or remove this class from train/ and {tested(root)}/",
            BAD_DATA,
        )
    say_left_out(folder, others, PICTURE_SUFFIXES)
    return files, names


def bare(files: list[tuple[Path, int]], names: list[str]) -> list[int]:
    """Return the numbers of the classes without pictures."""
    return sorted(set(range(len(names))) - {number for _, number in files})


def tested(root: Path) -> str:
    """Return the folder of the test part: test, or val (as in ImageNet) if there is no test."""
    return "val" if (root / "val").is_dir() and not (root / "test").is_dir() else "test"


OF_YOLO = ("images", "labels")
"""The folders below train/ in a YOLO folder."""


def has_folders(root: Path) -> bool:
    """Return whether a folder looks like an imagefolder: train/<class>/ and test/<class>/, or val/<class>/."""
    try:
        return all(
            any(p.is_dir() and not p.name.startswith(".") and p.name not in OF_YOLO for p in (root / part).iterdir())
            for part in ("train", tested(root))
        )
    except OSError:
        return False


@dataclass(frozen=True)
class Folder:
    """The listing of a folder of pictures: the files of both parts with their class numbers, and the class names."""

    label: str
    train: list[tuple[Path, int]]
    test: list[tuple[Path, int]]
    names: list[str]
    tested: str = "test"
    """Name of the test part's folder."""

    def native_size(self, crop: str = SHIFT) -> int:
        """Return the default side: the first picture's shorter one, at most 224, or 224 by ImageNet's recipe."""
        return SIDE if crop == IMAGENET else min(*decode(self.train[0][0]).size, SIDE)

    def bytes_needed(self, size: int) -> int:
        """Return the bytes that all pictures would take in memory at side `size`."""
        return (len(self.train) + len(self.test)) * size * size * 3

    def info(self, size: int) -> DataInfo:
        """Return the DataInfo, with mean 0 and std 1 in place of measured ones."""
        zero, one = (0.0,) * 3, (1.0,) * 3
        names = tuple(self.names)
        return DataInfo("imagefolder", self.label, len(names), size, zero, one, widest_shift(size), names=names)


def listed(root: Path) -> Folder:
    """List a folder of pictures.

    Raises:
        UserError: if a part is missing, the parts' classes differ or there is only one class, or as `label` and
            names.class_names (exit 4).
    """
    other = tested(root)
    (train, names), (test, found) = folder_files(root, "train"), folder_files(root, other)
    for odd in sorted({*names} ^ {*found}):
        where = "train" if odd in names else other
        text = f"{root}/train and {root}/{other} hold different classes: {odd} is in {where}"
        raise UserError(f"{text} only", "give both parts the same class folders", BAD_DATA)
    if len(names) < 2:
        text = f"{root} holds pictures of one class, {names[0]}: training needs at least two classes"
        raise UserError(text, f"make a folder for each class: DIR/train/<class>/* and DIR/{other}/<class>/*", BAD_DATA)
    return Folder(label(root), train, test, [*class_names(names, root)], other)


def label(root: Path) -> str:
    """Return a folder's label for tables: the one in its dataset.json, else the folder's name.

    Raises:
        UserError: for a malformed dataset.json, or a folder's name that is no line of text (exit 4).
    """
    path, name = root / "dataset.json", root.resolve().name
    if not path.exists():
        if not is_line(name):
            hint = f'write {{"label": "NAME"}} in {path}, or rename the folder'
            raise UserError(f"the name of {root} is no line of text: {name!r}", hint, BAD_DATA)
        return KNOWN.get(name, name)
    check_regular(path)
    try:
        with path.open("rb") as file:
            content = file.read(DESCRIPTION_BYTES + 1)
        if len(content) > DESCRIPTION_BYTES:
            raise ValueError(f"it has more than {DESCRIPTION_BYTES:,} bytes")
        said = json.loads(content)
        found = said.get("label") if isinstance(said, dict) else None
        if not isinstance(found, str) or not found.strip() or not found.isprintable() or len(found) > LABEL_LENGTH:
            raise ValueError(f"it has no label, which is a line of at most {LABEL_LENGTH} characters")
    except (OSError, ValueError, RecursionError) as fault:
        what = fault.strerror if isinstance(fault, OSError) else fault
        raise UserError(
            f"cannot read {path}: {what}", 'write {"label": "NAME"} in it, or remove it', BAD_DATA
        ) from fault
    return found.strip()


def read_folder(folder: Folder, size: int, workers: int = 2) -> Parts:
    """Read all pictures of a folder into memory, with mean and std of its training part.

    Args:
        workers: 0 allows no further processes.
    """
    info, files = folder.info(size), [*folder.train, *folder.test]
    pictures = read_all(files, size, info.label, workers_for(len(files), workers))
    labels = torch.tensor([number for _, number in files])
    count = len(folder.train)
    mean, std = statistics(pictures[:count])
    info = replace(info, mean=mean, std=std)
    return (pictures[:count], labels[:count]), (pictures[count:], labels[count:]), info
