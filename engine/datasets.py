"""Where pictures come from: CIFAR, the embedded digits, folders of the user's own.

One picture's file is pictures.py's, folders too large for memory are stream.py's.
Each reader returns ((train images, labels), (test images, labels), DataInfo); images are uint8 (N, H, W, 3), so that no
pixel can be NaN or out of range, and labels are numbered by the reader (CIFAR's are checked, see cifar.py).
"""

from __future__ import annotations

import hashlib
import os
import sys
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from engine.data import Channels, Data, DataInfo, TensorSplit, held_out
from engine.errors import BAD_DATA, UserError
from engine.pictures import decode, read_all

DIGITS_SHA256 = "0b7e9c3202d7bcd255d6a19a238d3743bf5e320ba74812a6679958a017c55382"
CIFAR10_PLACES = ("cifar-10-batches-py", "cifar-10-python.tar.gz")
IN_MEMORY_BYTES = 10**9
RESIZED_BYTES = 4 * 10**9  # what a set that cannot be streamed may grow to

PICTURE_SUFFIXES = {".jpg", ".jpeg", ".png", ".ppm", ".bmp", ".pgm", ".tif", ".tiff", ".webp"}

CIFAR: dict[str, tuple[str, Channels, Channels]] = {
    "cifar10": ("CIFAR-10", (0.4914, 0.4822, 0.4465), (0.2470, 0.2435, 0.2616)),
    "cifar100": ("CIFAR-100", (0.5071, 0.4866, 0.4409), (0.2673, 0.2564, 0.2762)),
}
"""What each is called, and the mean and standard deviation of its channels."""
Part = tuple[Tensor, Tensor]
Read = tuple[Part, Part, DataInfo]


def load(
    name: str = "auto",
    root: Path = Path("data"),
    device: torch.device | None = None,
    image_size: int | None = None,
    val: int = 0,
    workers: int = 2,
    flip: bool | None = None,
) -> Data:
    """Read a data set (the values of --dataset) and put it on the device.

    Args:
        flip: whether training mirrors pictures; None is the set's own choice: yes, digits no.

    Raises:
        UserError: exit 4 if pictures are missing or damaged, exit 2 if --val leaves none to train on.
    """
    device = device or torch.device("cpu")
    if name == "auto":
        return _auto(root, device, image_size, val, workers, flip)
    if name == "imagefolder":
        from engine import stream

        size = image_size or native_size(root)
        if stream.bytes_needed(root, size) > IN_MEMORY_BYTES:
            return stream.load(root, device, size, val, workers, flip)
        train, test, info = read_folder(root, size)
    else:
        train, test, info = READERS[name](root, image_size)
    if flip is not None:
        info = replace(info, flip=flip)
    judged = "test"
    if val:
        check_val(val, len(train[1]))
        test, train = ((train[0][i], train[1][i]) for i in reversed(held_out(len(train[1]), val)))
        judged = "val"
    return Data(info, TensorSplit(*train, info, device), TensorSplit(*test, info, device), judged)


def check_val(val: int, pictures: int) -> None:
    """Refuse to hold out every training picture: exit 2."""
    if val >= pictures:
        raise UserError(f"--val {val}: there are only {pictures} training pictures", "hold out fewer pictures")


def _auto(root: Path, *how: Any) -> Data:
    """CIFAR-10, else the digits with a notice that cannot be overlooked.

    Raises:
        UserError: exit 2 for a folder of other pictures: nothing is downloaded into it, nothing else trained on.
    """
    there = any(os.path.exists(root / name) for name in CIFAR10_PLACES)
    if not there and has_folders(root):
        raise UserError(
            f"{root} holds train/ and test/ folders, and no CIFAR-10",
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
    from engine import cifar

    check_size(cifar.PICTURES, image_size)
    train, test = (
        (resize(torch.from_numpy(np.ascontiguousarray(images)), image_size), torch.tensor(labels))
        for images, labels in cifar.read(kind, root)
    )
    return train, test, describe(kind, train[0].shape[1])


def describe(name: str, image_size: int) -> DataInfo:
    """What is known of CIFAR or the digits without reading pictures from disk."""
    if name == "digits":
        return load("digits", image_size=image_size).info
    from engine.cifar import CLASSES

    label, mean, std = CIFAR[name]
    return DataInfo(name, label, CLASSES[name], image_size, mean, std, widest_shift(image_size))


def widest_shift(size: int) -> int:
    """Pixels that training shifts a picture by at most: 4 of 32."""
    return max(1, size // 8)


def _digits(root: Path, image_size: int | None) -> Read:
    """scikit-learn's 1,797 real 8x8 digits, enlarged to 3x32x32; every fifth one is for testing."""
    from sklearn.datasets import load_digits

    check_size(1797, image_size)
    digits = load_digits()
    raw = np.round(digits.images * (255 / 16)).astype(np.uint8)  # (N, 8, 8), values 0..16
    if hashlib.sha256(raw.tobytes() + digits.target.astype(np.int64).tobytes()).hexdigest() != DIGITS_SHA256:
        raise UserError(
            "the digits of the installed scikit-learn are not the known ones (sha256 differs)",
            "reinstall scikit-learn",
            BAD_DATA,
        )
    images = resize(torch.from_numpy(raw)[..., None].expand(-1, -1, -1, 3), image_size or 32)
    labels = torch.from_numpy(digits.target.astype(np.int64))
    testing = torch.arange(len(labels)) % 5 == 0
    train, test = (images[~testing], labels[~testing]), (images[testing], labels[testing])
    side = images.shape[1]
    info = DataInfo("digits", "digits", 10, side, *statistics(train[0]), widest_shift(side), flip=False)
    return train, test, info


READERS = {
    "cifar10": lambda root, size: _cifar("cifar10", root, size),
    "cifar100": lambda root, size: _cifar("cifar100", root, size),
    "digits": _digits,
}


def check_size(pictures: int, size: int | None) -> None:
    """Refuse an --image_size at which a set kept in memory would take too much of it: exit 2."""
    needed = pictures * (size or 0) ** 2 * 3
    if needed > RESIZED_BYTES:
        largest = int((RESIZED_BYTES / pictures / 3) ** 0.5)
        raise UserError(
            f"--image_size {size}: {pictures:,} pictures of that size would take {needed / 1e9:.1f} GB",
            f"at most --image_size {largest} here; larger ones can be read from files, with --dataset imagefolder",
        )


def resize(images: Tensor, size: int | None) -> Tensor:
    """(N, H, W, 3) uint8 to side `size`, bilinear; None leaves the pictures alone."""
    if size is None or images.shape[1] == size:
        return images.contiguous()
    scaled = images.new_empty(len(images), size, size, 3)
    for start in range(0, len(images), 1000):  # as floats they would take four times the room, twice over
        part = images[start : start + 1000].permute(0, 3, 1, 2).float()
        part = torch.nn.functional.interpolate(part, (size, size), mode="bilinear", antialias=True)
        scaled[start : start + 1000] = part.round().clamp(0, 255).permute(0, 2, 3, 1)
    return scaled


def statistics(images: Tensor) -> tuple[Channels, Channels]:
    """Mean and standard deviation per channel of uint8 (N, H, W, 3), as fractions of 255, to 4 digits."""
    levels = torch.arange(256, dtype=torch.float64) / 255
    mean, std = [], []
    for channel in images.reshape(-1, 3).unbind(1):
        share = torch.bincount(channel, minlength=256).double() / len(channel)  # exact, and no copy as floats
        mean.append(float(share @ levels))
        std.append(max(float(share @ (levels - mean[-1]) ** 2) ** 0.5, 1e-4))
    return _rounded(mean), _rounded(std)


def _rounded(values: list[float]) -> Channels:
    red, green, blue = (round(v, 4) for v in values)
    return red, green, blue


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
