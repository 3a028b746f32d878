"""The embedded data set: scikit-learn's 1,797 handwritten digits."""

from __future__ import annotations

import hashlib
from pathlib import Path

import numpy as np
import torch

from engine.data.info import DataInfo, Parts
from engine.data.pixels import check_size, resize, statistics, widest_shift
from engine.errors import BAD_DATA, UserError

DIGITS_SHA256 = "0b7e9c3202d7bcd255d6a19a238d3743bf5e320ba74812a6679958a017c55382"


def read_digits(root: Path, image_size: int | None) -> Parts:
    """Read scikit-learn's 1,797 real 8x8 digits, enlarged to 3x32x32; every fifth one is for testing.

    Args:
        root: not read; every reader takes it.
        image_size: the side of the pictures in pixels; None for 32.

    Raises:
        UserError: exit 2 as check_size; exit 4 if the installed scikit-learn has other digits.
    """
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


def write_some(folder: Path, count: int) -> list[Path]:
    """Write the first `count` test pictures as files named after their digits, and return the paths."""
    from PIL import Image

    _, (images, labels), _ = read_digits(folder, None)
    folder.mkdir(parents=True, exist_ok=True)
    paths = []
    for number, (picture, label) in enumerate(zip(images[:count], labels[:count].tolist(), strict=True)):
        paths.append(folder / f"{number}-shows-{label}.png")
        Image.fromarray(picture.numpy()).save(paths[-1])
    return paths
