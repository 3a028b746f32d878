"""MNIST and Fashion-MNIST, in any of their places; anything else is exit 4 with the file's name."""

from __future__ import annotations

import gzip
import struct
from pathlib import Path
from types import SimpleNamespace

import pytest
import torch
import torchvision

from engine.data import catalogue, download, mnist
from engine.errors import BAD_DATA, UserError
from tests.tools.small_cifar import md5

SMALL = {"train": 30, "t10k": 20}


def idx(values: torch.Tensor) -> bytes:
    return struct.pack(f">{1 + values.ndim}i", 2048 + values.ndim, *values.shape) + values.numpy().tobytes()


@pytest.fixture
def files(monkeypatch: pytest.MonkeyPatch) -> dict[str, bytes]:
    """Make torchvision and this project accept a small Fashion-MNIST instead of the real one; return its four unpacked files."""
    draw = torch.Generator().manual_seed(0)
    found = {}
    for part, count in SMALL.items():
        found[f"{part}-images-idx3-ubyte"] = idx(torch.randint(256, (count, 28, 28), dtype=torch.uint8, generator=draw))
        found[f"{part}-labels-idx1-ubyte"] = idx(torch.randint(10, (count,), dtype=torch.uint8, generator=draw))
    known = [(f"{name}.gz", md5(packed(content))) for name, content in found.items()]
    monkeypatch.setattr(torchvision.datasets.FashionMNIST, "resources", known)
    monkeypatch.setattr(torchvision.datasets.FashionMNIST, "mirrors", ["http://127.0.0.1:9/"])
    monkeypatch.setitem(mnist.UNPACKED, "fashion_mnist", {name: md5(content) for name, content in found.items()})
    monkeypatch.setitem(mnist.SYSTEM, "fashion_mnist", Path("/nowhere"))
    monkeypatch.setitem(mnist.ADDRESSES, "fashion_mnist", ("https://127.0.0.1:9/",))
    monkeypatch.setattr(mnist, "COUNTS", SMALL)
    return found


def packed(content: bytes, level: int = 9) -> bytes:
    return gzip.compress(content, level, mtime=0)


def laid(folder: Path, files: dict[str, bytes], level: int = 9) -> Path:
    folder.mkdir(parents=True, exist_ok=True)
    for name, content in files.items():
        (folder / f"{name}.gz").write_bytes(packed(content, level))
    return folder


def assert_whole(root: Path, files: dict[str, bytes]) -> None:
    for (images, labels), (part, count) in zip(mnist.read("fashion_mnist", root), SMALL.items(), strict=True):
        assert images.shape == (count, 28, 28)
        assert images.numpy().tobytes() == files[f"{part}-images-idx3-ubyte"][16:]
        assert labels.tolist() == [*files[f"{part}-labels-idx1-ubyte"][8:]]


def test_what_torchvision_laid_down_is_read_as_it_reads_it(files: dict[str, bytes], tmp_path: Path) -> None:
    folder = laid(tmp_path / "FashionMNIST" / "raw", files)
    for name, content in files.items():
        (folder / name).write_bytes(content)
    for train, (images, labels) in zip((True, False), mnist.read("fashion_mnist", tmp_path), strict=True):
        theirs = torchvision.datasets.FashionMNIST(str(tmp_path), train=train)
        assert torch.equal(images, theirs.data)
        assert torch.equal(labels, theirs.targets)


@pytest.mark.parametrize("level", [9, 1], ids=["as they come", "packed anew"])
def test_files_are_read_from_the_folder_itself_and_from_where_a_system_puts_them(
    level: int, files: dict[str, bytes], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(download, "fetch_file", lambda *args: pytest.fail("it fetches"))
    assert_whole(laid(tmp_path / "own", files, level), files)
    monkeypatch.setitem(mnist.SYSTEM, "fashion_mnist", laid(tmp_path / "system", files, level))
    assert_whole(tmp_path / "empty", files)
    assert not (tmp_path / "empty").exists()


def test_unpacked_files_are_read(files: dict[str, bytes], tmp_path: Path) -> None:
    for name, content in files.items():
        (tmp_path / name).write_bytes(content)
    assert_whole(tmp_path, files)


@pytest.mark.parametrize("harm", ["another byte", "half of it", "no gzip"])
def test_a_damaged_file_is_named(harm: str, files: dict[str, bytes], tmp_path: Path) -> None:
    path = laid(tmp_path, files) / "t10k-images-idx3-ubyte.gz"
    content = bytearray(files["t10k-images-idx3-ubyte"])
    content[500] ^= 1
    path.write_bytes(
        {"another byte": packed(bytes(content)), "half of it": path.read_bytes()[:900], "no gzip": b"x"}[harm]
    )
    with pytest.raises(UserError, match=r"t10k-images-idx3-ubyte\.gz is damaged: md5 .*, not") as fault:
        mnist.read("fashion_mnist", tmp_path)
    assert fault.value.code == BAD_DATA
    assert "put t10k-images-idx3-ubyte.gz under" in str(fault.value.hint)


def test_what_is_missing_and_cannot_be_fetched_is_named(files: dict[str, bytes], tmp_path: Path) -> None:
    with pytest.raises(UserError, match=r"FashionMNIST/raw/train-images-idx3-ubyte\.gz is missing; and https") as fault:
        mnist.read("fashion_mnist", tmp_path)
    assert fault.value.code == BAD_DATA
    assert [*tmp_path.iterdir()] == []


def test_a_missing_file_is_fetched_once(
    files: dict[str, bytes], server: SimpleNamespace, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    name = "t10k-labels-idx1-ubyte"
    (laid(tmp_path, files) / f"{name}.gz").unlink()
    server.body = packed(files[name])
    address = server.url.rpartition("/")[0] + "/"
    monkeypatch.setitem(
        mnist.ADDRESSES, "fashion_mnist", ("http://127.0.0.1:9/", address)
    )  # no server listens at the first address
    assert_whole(tmp_path, files)
    assert_whole(tmp_path, files)
    assert server.asked == 1
    assert (tmp_path / "FashionMNIST" / "raw" / f"{name}.gz").read_bytes() == packed(files[name])


def test_pictures_are_gray_in_three_channels(files: dict[str, bytes], tmp_path: Path) -> None:
    data = catalogue.load("fashion_mnist", laid(tmp_path, files))
    assert data.info == catalogue.describe("fashion_mnist", None)
    assert data.info.label == "Fashion-MNIST"
    assert data.train.images.shape == (30, 28, 28, 3)  # type: ignore[attr-defined]
    pictures, _ = next(data.train.batches(5))
    assert torch.equal(pictures[:, 0], pictures[:, 2])
    larger = catalogue.load("fashion_mnist", tmp_path, image_size=32)
    assert larger.info.image_size == larger.train.images.shape[1] == 32  # type: ignore[attr-defined]


def test_handwritten_digits_are_not_mirrored() -> None:
    assert catalogue.describe("mnist", None).flip is False
    assert catalogue.describe("fashion_mnist", None).flip is True


def test_the_true_files_of_the_system_are_read() -> None:
    folder = mnist.SYSTEM["fashion_mnist"]
    if not folder.exists():
        pytest.skip("Debian's dataset-fashion-mnist is not installed")
    (images, labels), (other, _) = mnist.read("fashion_mnist", Path("/nowhere"))
    assert (len(images), len(other)) == (60_000, 10_000)
    assert labels.bincount().tolist() == [6000] * 10
