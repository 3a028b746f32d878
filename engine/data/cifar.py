"""Read CIFAR-10 and CIFAR-100 without running code from their pickles; download.py fetches the files.

torchvision's reader is not used: it unpickles any file with the right md5, which can be forged.
"""

from __future__ import annotations

import io
import pickle
from pathlib import Path
from typing import Any

import numpy as np

from engine.data import download
from engine.errors import BAD_DATA, UserError

NAMES = {"cifar10": "CIFAR10", "cifar100": "CIFAR100"}
CLASSES = {"cifar10": 10, "cifar100": 100}
PICTURES = 60_000

_ARRAYS = {
    ("numpy", "dtype"),
    ("numpy", "ndarray"),
    ("numpy.core.multiarray", "_reconstruct"),  # the name in NumPy 1 and in the files
    ("numpy._core.multiarray", "_reconstruct"),
}

Part = tuple[np.ndarray, list[int]]


class _Arrays(pickle.Unpickler):
    """An unpickler for lists, dicts, text and arrays; it refuses every other name."""

    def find_class(self, module: str, name: str) -> Any:
        if (module, name) not in _ARRAYS:
            raise pickle.UnpicklingError(f"it holds {module}.{name}")
        return super().find_class(module, name)


def read(kind: str, root: Path) -> tuple[Part, Part]:
    """Read both parts of a set, uint8 (N, 32, 32, 3) and labels; files missing under `root` are downloaded first.

    Raises:
        UserError: naming the file, and both hashes if they differ (exit 4); if it cannot be written (exit 6).
    """
    import torchvision

    source = getattr(torchvision.datasets, NAMES[kind])
    parts = {"train": dict(source.train_list), "test": dict(source.test_list)}
    files = {name: md5 for part in parts.values() for name, md5 in part.items()}
    folder = root / source.base_folder
    contents = download.obtain(source, root, files)
    train, test = (
        _part({folder / name: contents.pop(name) for name in part}, CLASSES[kind]) for part in parts.values()
    )
    return train, test


def _part(contents: dict[Path, bytes], classes: int) -> Part:
    images, labels = [], []
    for path, content in contents.items():
        pixels, numbers = batch(path, content, classes)
        images.append(pixels)
        labels += numbers
    return np.concatenate(images), labels


def batch(path: Path, content: bytes, classes: int) -> Part:
    """Read one batch file: uint8 (N, 32, 32, 3) and N labels below `classes`.

    Raises:
        UserError: for any other content (exit 4).
    """
    try:
        held = _Arrays(io.BytesIO(content), encoding="latin1").load()
        pixels, labels = held["data"], held.get("labels", held.get("fine_labels"))
        if not isinstance(pixels, np.ndarray) or pixels.dtype != np.uint8 or pixels.shape != (len(labels), 3072):
            raise ValueError("its pictures are not 3 x 32 x 32 bytes each")
        if not all(type(label) is int and 0 <= label < classes for label in labels):
            raise ValueError(f"its labels are not integers below {classes}")
    except Exception as problem:  # a forged pickle can raise nearly anything
        raise UserError(
            f"{path} cannot be read ({str(problem)[:200]})", "delete its folder and fetch the set again", BAD_DATA
        ) from problem
    return pixels.reshape(-1, 3, 32, 32).transpose(0, 2, 3, 1), labels
