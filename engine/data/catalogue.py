"""The data sets of pictures: CIFAR, MNIST and Fashion-MNIST, the embedded digits, the user's own folders.

detection/sets.py reads the sets with boxes, pictures.py one picture's file, and stream.py folders too large for memory.
Each reader returns ((train images, labels), (test images, labels), DataInfo). Images are uint8 (N, H, W, 3),
so no pixel can be NaN or out of range. Labels are numbered by the reader; CIFAR's are checked, see cifar.py.
"""

from __future__ import annotations

import os
import sys
from collections.abc import Callable
from dataclasses import replace
from functools import partial
from pathlib import Path

import numpy as np
import torch

from engine.cli.datasets import BOXES, IMAGENET, SHIFT
from engine.data.contract import checked
from engine.data.detection import sets
from engine.data.digits import read_digits
from engine.data.image_folder import CIFAR10_COPY, Folder, has_folders, listed, read_folder, tested
from engine.data.info import Channels, DataInfo, Parts
from engine.data.pixels import check_size, resize, widest_shift
from engine.data.splits import Data, TensorSplit, held_out
from engine.errors import BAD_DATA, UserError

CIFAR10_PLACES = ("cifar-10-batches-py", "cifar-10-python.tar.gz")
IN_MEMORY_BYTES = 10**9

CIFAR: dict[str, tuple[str, Channels, Channels]] = {
    "cifar10": ("CIFAR-10", (0.4914, 0.4822, 0.4465), (0.2470, 0.2435, 0.2616)),
    "cifar100": ("CIFAR-100", (0.5071, 0.4866, 0.4409), (0.2673, 0.2564, 0.2762)),
}
"""The label of each set, and the mean and standard deviation of its channels."""
CIFAR_SIDE = 32

MNIST: dict[str, tuple[str, float, float, tuple[str, ...]]] = {
    "mnist": ("MNIST", 0.1307, 0.3081, ()),
    "fashion_mnist": (
        "Fashion-MNIST", 0.2860, 0.3530,
        ("T-shirt/top", "Trouser", "Pullover", "Dress", "Coat", "Sandal", "Shirt", "Sneaker", "Bag", "Ankle boot"),
    ),
}  # fmt: skip
"""The label of each set, the mean and standard deviation of its grey pictures, and the names of its classes."""

ORIGINAL: tuple[Channels, Channels] = ((0.4914, 0.4822, 0.4465), (0.2023, 0.1994, 0.2010))
"""Mean and standard deviation of the original repository's networks on CIFAR-10; its standard deviation differs."""


def has_cifar10(root: Path) -> bool:
    """Return whether CIFAR-10's files or their archive are under a folder."""
    return any(os.path.exists(root / name) for name in CIFAR10_PLACES)


def is_cifar10(info: DataInfo) -> bool:
    """Return whether these are the pictures of CIFAR-10, from its own files or as JPEG files in a folder."""
    return info.name == "cifar10" or (info.name == "imagefolder" and info.label == CIFAR10_COPY)


def load(
    name: str = "auto",
    root: Path = Path("data"),
    device: torch.device | None = None,
    image_size: int | None = None,
    val: int = 0,
    workers: int = 2,
    flip: bool | None = None,
    folder: Folder | None = None,
    crop: str = SHIFT,
) -> Data:
    """Read a data set (the values of --dataset) and put it on the device.

    Args:
        flip: whether training mirrors pictures; None takes the set's default: yes, but no for digits,
            mnist and scenes.
        folder: the listing of `root`, if an imagefolder was already listed.
        crop: the value of --crop. With `imagenet`, pictures are streamed, as random parts are cut at full resolution.

    Raises:
        UserError: if pictures are missing or damaged (exit 4), if --val leaves none to train on, or for crop `imagenet`
            of a set that is no imagefolder (exit 2).
    """
    if crop == IMAGENET and name != "imagefolder":
        raise UserError(
            f"--crop {IMAGENET} is for folders of pictures, not for {name}",
            "add --dataset imagefolder --data DIR, or leave --crop out",
        )
    device = device or torch.device("cpu")
    if name == "auto":
        read = partial(load, root=root, device=device, image_size=image_size, val=val, workers=workers, flip=flip)
        return _auto(root, read)
    if name in BOXES:
        return sets.load(name, root, device, image_size, val, workers, flip)
    if name == "imagefolder":
        from engine.data import stream

        folder = folder or listed(root)
        size = image_size or folder.native_size(crop)
        if crop == IMAGENET or folder.bytes_needed(size) > IN_MEMORY_BYTES:
            return stream.load(folder, device, size, val, workers, flip, crop)
        train, test, info = read_folder(folder, size, workers)
    else:
        train, test, info = checked(name, READERS[name](root, image_size))
    if flip is not None:
        info = replace(info, flip=flip)
    if val:
        train, test = ((train[0][numbers], train[1][numbers]) for numbers in held_out(len(train[1]), val))
    parts = [TensorSplit(*pictures, info, device) for pictures in (train, test)]
    return Data(info, parts[0], parts[1], "val" if val else "test")


def _auto(root: Path, read: Callable[[str], Data]) -> Data:
    """Read CIFAR-10, or else the digits with a conspicuous notice.

    Args:
        read: reads a data set by its name.

    Raises:
        UserError: if `root` holds other pictures (exit 2); nothing is then downloaded or trained on.
    """
    there = has_cifar10(root)
    if not there and has_folders(root):
        raise UserError(
            f"{root} holds train/ and {tested(root)}/ folders, but no CIFAR-10",
            "choose the pictures: --dataset imagefolder (these folders), cifar10 or digits",
        )
    try:
        return read("cifar10")
    except UserError as fault:
        if fault.code != BAD_DATA or there:
            raise  # damaged pictures are an error, not a reason to train on others
        rule = "=" * 78
        print(
            f"{rule}\nNOTICE: CIFAR-10 is not on disk under {root}/ and could not be downloaded.\n"
            "Using the embedded handwritten digits (scikit-learn) instead: results are for\n"
            f"DIGITS and say so. Insist on CIFAR-10 with --dataset cifar10.\n{rule}",
            file=sys.stderr,
        )
        return read("digits")


def _cifar(kind: str, root: Path, image_size: int | None) -> Parts:
    from engine.data import cifar

    check_size(cifar.PICTURES, image_size)
    train, test = (
        (resize(torch.from_numpy(np.ascontiguousarray(images)), image_size), torch.tensor(labels))
        for images, labels in cifar.read(kind, root)
    )
    return train, test, describe(kind, train[0].shape[1])


def _mnist(kind: str, root: Path, image_size: int | None) -> Parts:
    """Read grey pictures as three equal channels; normalise reduces them to one for networks that read one."""
    from engine.data import mnist

    check_size(sum(mnist.COUNTS.values()), image_size)
    train, test = (
        (resize(images[..., None].expand(-1, -1, -1, 3), image_size), labels)
        for images, labels in mnist.read(kind, root)
    )
    return train, test, describe(kind, train[0].shape[1])


def describe(name: str, image_size: int | None, root: Path = Path("data"), crop: str = SHIFT) -> DataInfo:
    """Describe a data set without reading its pictures from disk; a folder's mean and std are then unknown.

    Args:
        image_size: side of the pictures; None takes the data set's.

    Raises:
        UserError: for a folder without pictures (exit 4).
    """
    if name == "digits":
        return load("digits", image_size=image_size).info
    if name in BOXES:
        return sets.describe(name, image_size, root)
    if name == "imagefolder":
        folder = listed(root)
        return folder.info(image_size or folder.native_size(crop))
    if name in MNIST:
        from engine.data import mnist

        size, (label, gray, spread, names) = image_size or mnist.SIDE, MNIST[name]
        flip = name != "mnist"  # digits are not mirrored
        return DataInfo(
            name, label, mnist.CLASSES, size, (gray,) * 3, (spread,) * 3, widest_shift(size), flip, names=names
        )
    from engine.data.cifar import CLASSES

    size = image_size or CIFAR_SIDE
    label, mean, std = CIFAR[name]
    return DataInfo(name, label, CLASSES[name], size, mean, std, widest_shift(size))


READERS = {
    "cifar10": lambda root, size: _cifar("cifar10", root, size),
    "cifar100": lambda root, size: _cifar("cifar100", root, size),
    "mnist": lambda root, size: _mnist("mnist", root, size),
    "fashion_mnist": lambda root, size: _mnist("fashion_mnist", root, size),
    "digits": read_digits,
}
