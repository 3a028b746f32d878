"""A CIFAR-10 of twelve pictures in the real file layout; the fixture `source` of conftest.py makes torchvision accept it."""

from __future__ import annotations

import hashlib
import io
import pickle
from pathlib import Path
from types import SimpleNamespace
from typing import Any, ClassVar

import numpy as np
import pytest
import torch

from engine.data import catalogue
from engine.errors import BAD_DATA, UserError


class Python2(pickle._Pickler):
    """A pickler that writes bytes as Python 2 did for CIFAR's files: plain strings, to be read as latin1."""

    dispatch: ClassVar = dict(pickle._Pickler.dispatch)

    def save_bytes(self, content: bytes) -> None:
        self.write(pickle.BINSTRING + len(content).to_bytes(4, "little") + content)

    dispatch[bytes] = save_bytes


def pickled(value: Any) -> bytes:
    buffer = io.BytesIO()
    Python2(buffer, 2).dump(value)
    return buffer.getvalue().replace(b"numpy._core.multiarray", b"numpy.core.multiarray")


def batch(seed: int, count: int = 4, **changes: Any) -> dict[str, Any]:
    pixels = np.random.default_rng(seed).integers(0, 256, (count, 3072), np.uint8)
    return {"batch_label": "x", "data": pixels, "labels": [seed, *range(1, count)], "filenames": ["a.png"], **changes}


def md5(content: bytes) -> str:
    return hashlib.md5(content).hexdigest()


def unpacked(source: SimpleNamespace) -> None:
    source.folder.mkdir(parents=True)
    for name, content in source.files.items():
        (source.folder / name).write_bytes(content)


def assert_whole(source: SimpleNamespace, root: Path | None = None) -> None:
    known = catalogue.load("cifar10", root or source.root)
    pixels = np.concatenate([batch(n)["data"] for n in (1, 2)]).reshape(-1, 3, 32, 32).transpose(0, 2, 3, 1)
    assert torch.equal(known.train.images, torch.from_numpy(pixels.copy()))
    assert known.train.labels.tolist() == [1, 1, 2, 3, 2, 1, 2, 3]
    assert known.test.labels.tolist() == [3, 1, 2, 3]
    assert (known.info.label, known.info.classes, known.info.image_size) == ("CIFAR-10", 10, 32)


def refused(source: SimpleNamespace, *words: str, root: Path | None = None) -> UserError:
    with pytest.raises(UserError) as fault:
        catalogue.load("cifar10", root or source.root)
    assert fault.value.code == BAD_DATA
    assert fault.value.hint
    for word in words:
        assert word in str(fault.value)
    return fault.value


def leftovers(source: SimpleNamespace) -> list[str]:
    return [path.name for path in source.root.iterdir() if path.name.endswith((".part", ".tmp"))]
