"""Folders of pictures, DIR/train/<class>/* and DIR/test/<class>/*. One picture's file is read in pictures.py."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import torch

from engine.data.info import DataInfo, Read
from engine.data.pictures import decode, read_all
from engine.data.pixels import statistics, widest_shift
from engine.errors import BAD_DATA, UserError

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
            "--dataset imagefolder wants DIR/train/<class>/* and DIR/test/<class>/*, DIR given by --data",
            BAD_DATA,
        )
    for number in sorted(set(range(len(names))) - {number for _, number in files}):
        raise UserError(
            f"no pictures under {folder / names[number]}/",
            f"put some there ({' '.join(sorted(PICTURE_SUFFIXES))}), or take its class out of train/ and test/",
            BAD_DATA,
        )
    return files, names


def _is_class(path: Path) -> bool:
    return path.is_dir() and not path.name.startswith(".")


def has_folders(root: Path) -> bool:
    """Whether it looks like a folder of the user's pictures: train/<class>/ and test/<class>/."""
    try:
        return all(any(map(_is_class, (root / part).iterdir())) for part in ("train", "test"))
    except OSError:
        return False


def native_size(root: Path) -> int:
    """The side that pictures of a folder get without --image_size: the first one's, at most 224."""
    files, _ = folder_files(root, "train")
    return min(*decode(files[0][0]).size, 224)


def folder_parts(root: Path) -> tuple[list[tuple[Path, int]], list[tuple[Path, int]], list[str]]:
    """The files of both parts and the names of their classes.

    Raises:
        UserError: exit 4 if a part is missing, their classes differ, or there is only one.
    """
    (train, names), (test, found) = folder_files(root, "train"), folder_files(root, "test")
    for odd in sorted({*names} ^ {*found}):
        text = f"{root}/train and {root}/test hold different classes: {odd} is in {'train' if odd in names else 'test'}"
        raise UserError(f"{text} alone", "make their folders agree", BAD_DATA)
    if len(names) < 2:
        text = f"{root} holds pictures of one class, {names[0]}: training needs at least two classes"
        raise UserError(text, "make a folder for each class: DIR/train/<class>/* and DIR/test/<class>/*", BAD_DATA)
    return train, test, names


def folder_info(root: Path, names: list[str], size: int) -> DataInfo:
    """DataInfo without statistics; the known JPEG copy of CIFAR-10 is labelled as what it is."""
    label = {"cifar10-jpeg": "CIFAR-10 (JPEG copy)"}.get(root.resolve().name, root.resolve().name)
    zero, one = (0.0,) * 3, (1.0,) * 3
    return DataInfo("imagefolder", label, len(names), size, zero, one, widest_shift(size), names=tuple(names))


def read_folder(root: Path, size: int) -> Read:
    """All pictures of a folder in memory; mean and std come from its training part."""
    train, test, names = folder_parts(root)
    info = folder_info(root, names, size)
    pictures = read_all([*train, *test], size, info.label)
    labels = torch.tensor([number for _, number in (*train, *test)])
    count = len(train)
    mean, std = statistics(pictures[:count])
    info = replace(info, mean=mean, std=std)
    return (pictures[:count], labels[:count]), (pictures[count:], labels[count:]), info
