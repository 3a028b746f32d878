"""MNIST and Fashion-MNIST: grey pictures of 28x28 and their labels, in four files.

Names, addresses, md5 sums and the parser are torchvision's. The files are read from torchvision's folder layout, the
data folder itself or a system package's folder; download.py fetches missing ones.
"""

from __future__ import annotations

import gzip
import tempfile
import zlib
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from engine.data import download

NAMES = {"mnist": "MNIST", "fashion_mnist": "FashionMNIST"}
SIDE, CLASSES = 28, 10
COUNTS = {"train": 60_000, "t10k": 10_000}
SYSTEM = {"fashion_mnist": Path("/usr/share/datasets/fashion-mnist")}
"""Where Debian's package dataset-fashion-mnist installs the files, recompressed."""
UNPACKED = {
    "mnist": {
        "train-images-idx3-ubyte": "6bbc9ace898e44ae57da46a324031adb",
        "train-labels-idx1-ubyte": "a25bea736e30d166cdddb491f175f624",
        "t10k-images-idx3-ubyte": "2646ac647ad5339dbf082846283269ea",
        "t10k-labels-idx1-ubyte": "27ae3e4e09519cfbb04c329615203637",
    },
    "fashion_mnist": {
        "train-images-idx3-ubyte": "f4a8712d7a061bf5bd6d2ca38dc4d50a",
        "train-labels-idx1-ubyte": "9018921c3c673c538a1fc5bad174d6f9",
        "t10k-images-idx3-ubyte": "8181f5470baa50b63fa0f6fddb340f0a",
        "t10k-labels-idx1-ubyte": "15d484375f8d13e6eb1aabb0c3f46965",
    },
}
"""md5 sums of the uncompressed files, as a copy may be uncompressed or recompressed."""
ADDRESSES = {"fashion_mnist": ("https://raw.githubusercontent.com/zalandoresearch/fashion-mnist/master/data/fashion/",)}
"""https addresses; torchvision's own for this set uses http."""

Part = tuple[Tensor, Tensor]


def read(kind: str, root: Path) -> tuple[Part, Part]:
    """Read both parts of a set, uint8 (N, 28, 28) and int64 labels (N,); missing files are downloaded below `root`.

    Raises:
        UserError: naming a file that is damaged or cannot be downloaded (exit 4), or cannot be written (exit 6).
    """
    import torchvision

    source = getattr(torchvision.datasets, NAMES[kind])
    contents = {Path(name).stem: _content(kind, source, root, name, md5) for name, md5 in source.resources}
    train, test = (
        _part({stem: content for stem, content in contents.items() if stem.startswith(part)}, count)
        for part, count in COUNTS.items()
    )
    return train, test


def _content(kind: str, source: Any, root: Path, name: str, md5: str) -> bytes:
    """Return a file's uncompressed content."""
    own = root / source.__name__ / "raw"
    problem = ""
    for folder in (own, root, *([SYSTEM[kind]] if kind in SYSTEM else [])):
        found = _in(folder, name, md5, UNPACKED[kind])
        if isinstance(found, bytes):
            return found
        problem = problem or found
    mirrors = (*ADDRESSES.get(kind, ()), *source.mirrors)
    addresses = [mirror + name for mirror in mirrors if mirror.partition(":")[0] in download.SCHEMES]
    remedy = f"put {name} under {root}/, point --data at a folder that has it, or take --dataset digits"
    packed = download.fetch_file(addresses, own / name, md5, problem or f"{own / name} is missing", remedy)
    return gzip.decompress(packed)


def _in(folder: Path, name: str, md5: str, unpacked: dict[str, str]) -> bytes | str:
    """Return a file's uncompressed content, or a description of its damage, empty if the file is missing.

    Raises:
        UserError: if it cannot be read (exit 4).
    """
    stem = Path(name).stem
    for path in (folder / name, folder / stem):
        content = download.held(path)
        if content is None:
            continue
        found = download.md5(content)
        if path.suffix == ".gz":
            try:
                content = gzip.decompress(content)
            except (OSError, EOFError, zlib.error):
                return f"{path} is damaged: md5 {found}, not {md5}"
            if found == md5:
                return content
        inside = download.md5(content)
        return content if inside == unpacked.get(stem) else f"{path} is damaged: md5 {found}, not {md5}"
    return ""


def _part(contents: dict[str, bytes], count: int) -> Part:
    """Parse files with the right md5 into pictures and labels."""
    from torchvision.datasets import mnist

    with tempfile.TemporaryDirectory() as folder:  # torchvision reads from paths only
        paths = {stem: Path(folder) / stem for stem in contents}
        for stem, path in paths.items():
            path.write_bytes(contents[stem])
        images, labels = (
            next(read(str(path)) for stem, path in paths.items() if what in stem)
            for what, read in (("images", mnist.read_image_file), ("labels", mnist.read_label_file))
        )
    if (
        images.shape != (count, SIDE, SIDE)
        or labels.shape != (count,)
        or not 0 <= int(labels.min()) <= int(labels.max()) < CLASSES
    ):
        raise AssertionError(f"{images.shape} pictures and {labels.shape} labels")  # impossible after the md5 check
    return images, labels.to(torch.int64)
