"""Where pictures come from: CIFAR, MNIST and its like, the embedded digits, folders of the user's own.

Sets whose pictures have objects in them are detection/sets.py's. One picture's file is pictures.py's, folders too large for memory are stream.py's.
Each reader returns ((train images, labels), (test images, labels), DataInfo); images are uint8 (N, H, W, 3), so that no
pixel can be NaN or out of range, and labels are numbered by the reader (CIFAR's are checked, see cifar.py).
"""

from __future__ import annotations

import os
import sys
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import torch

from engine.cli.datasets import BOXES, IMAGENET, SHIFT
from engine.data.detection import sets
from engine.data.digits import read_digits
from engine.data.image_folder import CIFAR10_COPY, Folder, has_folders, listed, read_folder, tested
from engine.data.info import Channels, DataInfo, Read
from engine.data.pixels import check_size, resize, widest_shift
from engine.data.splits import Data, TensorSplit, held_out
from engine.errors import BAD_DATA, UserError

CIFAR10_PLACES = ("cifar-10-batches-py", "cifar-10-python.tar.gz")
IN_MEMORY_BYTES = 10**9

CIFAR: dict[str, tuple[str, Channels, Channels]] = {
    "cifar10": ("CIFAR-10", (0.4914, 0.4822, 0.4465), (0.2470, 0.2435, 0.2616)),
    "cifar100": ("CIFAR-100", (0.5071, 0.4866, 0.4409), (0.2673, 0.2564, 0.2762)),
}
"""What each is called, and the mean and standard deviation of its channels."""
CIFAR_SIDE = 32

MNIST: dict[str, tuple[str, float, float, tuple[str, ...]]] = {
    "mnist": ("MNIST", 0.1307, 0.3081, ()),
    "fashion_mnist": (
        "Fashion-MNIST", 0.2860, 0.3530,
        ("T-shirt/top", "Trouser", "Pullover", "Dress", "Coat", "Sandal", "Shirt", "Sneaker", "Bag", "Ankle boot"),
    ),
}  # fmt: skip
"""What each is called, mean and standard deviation of its gray pictures, and its classes' names. Digits are not mirrored."""

ORIGINAL: tuple[Channels, Channels] = ((0.4914, 0.4822, 0.4465), (0.2023, 0.1994, 0.2010))
"""What the original's networks were trained with on CIFAR-10: its mean, and another standard deviation."""


def has_cifar10(root: Path) -> bool:
    """Whether its files, or the archive of them, lie under a folder."""
    return any(os.path.exists(root / name) for name in CIFAR10_PLACES)


def is_cifar10(info: DataInfo) -> bool:
    """Whether these are the pictures of CIFAR-10, in its own files or as JPEG files in a folder."""
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
        flip: whether training mirrors pictures; None is the set's own choice: yes, digits no.
        folder: what lies under `root`, where an imagefolder has been listed already.
        crop: the value of --crop. By ImageNet's recipe pictures are streamed: random parts are cut from the files' own pixels.

    Raises:
        UserError: exit 4 if pictures are missing or damaged, exit 2 if --val leaves none to train on, or for ImageNet's
            recipe of pictures that are no imagefolder.
    """
    if crop == IMAGENET and name != "imagefolder":
        raise UserError(
            f"--crop {IMAGENET} is for folders of pictures, not for {name}",
            "add --dataset imagefolder --data DIR, or leave --crop out",
        )
    device = device or torch.device("cpu")
    if name == "auto":
        return _auto(root, device, image_size, val, workers, flip)
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
        train, test, info = READERS[name](root, image_size)
    if flip is not None:
        info = replace(info, flip=flip)
    if val:
        train, test = ((train[0][numbers], train[1][numbers]) for numbers in held_out(len(train[1]), val))
    parts = [TensorSplit(*pictures, info, device) for pictures in (train, test)]
    return Data(info, parts[0], parts[1], "val" if val else "test")


def _auto(root: Path, *how: Any) -> Data:
    """CIFAR-10, else the digits with a notice that cannot be overlooked.

    Raises:
        UserError: exit 2 for a folder of other pictures: nothing is downloaded into it, nothing else trained on.
    """
    there = has_cifar10(root)
    if not there and has_folders(root):
        raise UserError(
            f"{root} holds train/ and {tested(root)}/ folders, and no CIFAR-10",
            "say which pictures: --dataset imagefolder (those of the folders), cifar10 or digits",
        )
    try:
        return load("cifar10", root, *how)
    except UserError as fault:
        if fault.code != BAD_DATA or there:
            raise  # damaged pictures are a fault, not a reason to train on others
        rule = "=" * 78
        print(
            f"{rule}\nNOTICE: CIFAR-10 is not on disk under {root}/ and could not be downloaded.\n"
            "Using the embedded handwritten digits (scikit-learn) instead: results are for\n"
            f"DIGITS and say so. Insist on CIFAR-10 with --dataset cifar10.\n{rule}",
            file=sys.stderr,
        )
        return load("digits", root, *how)


def _cifar(kind: str, root: Path, image_size: int | None) -> Read:
    from engine.data import cifar

    check_size(cifar.PICTURES, image_size)
    train, test = (
        (resize(torch.from_numpy(np.ascontiguousarray(images)), image_size), torch.tensor(labels))
        for images, labels in cifar.read(kind, root)
    )
    return train, test, describe(kind, train[0].shape[1])


def _mnist(kind: str, root: Path, image_size: int | None) -> Read:
    """Gray pictures, in three equal channels: networks that read one are shown one."""
    from engine.data import mnist

    check_size(sum(mnist.COUNTS.values()), image_size)
    train, test = (
        (resize(images[..., None].expand(-1, -1, -1, 3), image_size), labels)
        for images, labels in mnist.read(kind, root)
    )
    return train, test, describe(kind, train[0].shape[1])


def describe(name: str, image_size: int | None, root: Path = Path("data"), crop: str = SHIFT) -> DataInfo:
    """What is known of a data set without reading pictures from disk; of a folder without its mean and std.

    Args:
        image_size: None: as the data set has them.

    Raises:
        UserError: exit 4 for a folder that holds no pictures.
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
        flip = name != "mnist"
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
