"""CIFAR on disk and from the network: complete files are read without running code, anything else is exit 4 with its name."""

from __future__ import annotations

import os
import shutil
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch
import torchvision

from engine.data import catalogue, cifar, download, pixels
from engine.errors import BAD_DATA, USAGE, UserError
from tests.tools.forge import Call
from tests.tools.small_cifar import assert_whole, batch, md5, pickled, refused, unpacked


def test_a_set_on_disk_is_read_as_torchvision_reads_it(source: SimpleNamespace) -> None:
    unpacked(source)
    (source.folder / "batches.meta").write_bytes(pickled({"label_names": [str(n) for n in range(10)]}))
    known = torchvision.datasets.CIFAR10
    known.meta = {**known.meta, "md5": md5((source.folder / "batches.meta").read_bytes())}
    for train, (images, labels) in zip((True, False), cifar.read("cifar10", source.root), strict=True):
        theirs = known(str(source.root), train=train)
        assert np.array_equal(images, theirs.data)
        assert labels == theirs.targets
    assert_whole(source)


def test_it_is_read_where_nothing_can_be_written_and_under_any_name(
    source: SimpleNamespace, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    unpacked(source)
    odd = tmp_path / "数据 mit Leerzeichen"
    shutil.copytree(source.root, odd)
    linked = tmp_path / "link"
    linked.symlink_to(odd)
    before = sorted(odd.rglob("*"))
    for place in (odd, linked):
        assert_whole(source, place)
    monkeypatch.setattr(Path, "mkdir", lambda *args, **kwargs: pytest.fail("it writes"))
    monkeypatch.setattr(download, "fetch", lambda *args: pytest.fail("it fetches"))
    assert_whole(source, odd)
    assert sorted(odd.rglob("*")) == before


def test_an_archive_on_disk_is_unpacked_without_a_network(source: SimpleNamespace) -> None:
    source.root.mkdir()
    source.tar.write_bytes(source.archive)
    assert_whole(source)
    path = source.folder / "data_batch_2"
    raw = bytearray(path.read_bytes())
    raw[1000] ^= 1
    path.write_bytes(raw)
    assert_whole(source)  # restored from the archive
    assert path.read_bytes() == source.files["data_batch_2"]


@pytest.mark.parametrize("kind", ["flipped", "truncated", "missing", "html", "partial archive"])
def test_damage_that_cannot_be_mended_is_named(kind: str, source: SimpleNamespace) -> None:
    if kind == "partial archive":
        source.root.mkdir()
        source.tar.write_bytes(source.archive[:-100])
        refused(source, str(source.tar), md5(source.archive[:-100]), md5(source.archive), "could not be downloaded")
        with pytest.raises(UserError, match="could not be downloaded"):
            catalogue.load("auto", source.root)  # the user wants CIFAR-10, so the digits must not replace it
        return
    unpacked(source)
    path, raw = source.folder / "data_batch_2", source.files["data_batch_2"]
    damaged = {"flipped": raw[:50] + b"\0" + raw[51:], "truncated": raw[:-1], "html": b"<html>", "missing": b""}[kind]
    path.write_bytes(damaged)
    if kind == "missing":
        path.unlink()
        refused(source, str(path), "is missing")
    else:
        refused(source, str(path), md5(damaged), md5(raw))


@pytest.mark.parametrize("name", ["cifar10", "auto"])
@pytest.mark.parametrize("closed", ["data_batch_2", "cifar-10-batches-py", "cifar-10-python.tar.gz"])
def test_what_may_not_be_read_is_named(
    closed: str, name: str, source: SimpleNamespace, monkeypatch: pytest.MonkeyPatch
) -> None:
    unpacked(source)
    if closed.endswith("gz"):
        shutil.rmtree(source.folder)
        source.tar.write_bytes(source.archive)
    real = Path.read_bytes

    def read_bytes(path: Path) -> bytes:  # the tests may run as root, whom mode bits do not stop
        if closed in path.parts:
            raise PermissionError(13, "Permission denied", str(path))
        return real(path)

    monkeypatch.setattr(Path, "read_bytes", read_bytes)
    with pytest.raises(UserError, match=f"{closed}.* cannot be read .Permission denied.") as fault:
        catalogue.load(name, source.root)
    assert fault.value.code == BAD_DATA
    assert "--dataset digits" in fault.value.hint


def test_each_file_is_read_once(source: SimpleNamespace, monkeypatch: pytest.MonkeyPatch) -> None:
    unpacked(source)
    real, seen = Path.read_bytes, []
    monkeypatch.setattr(Path, "read_bytes", lambda path: seen.append(path.name) or real(path))
    assert_whole(source)
    assert sorted(seen) == sorted(source.files)


@pytest.mark.parametrize(
    ("changes", "word"),
    [
        ({"data": Call(os.mkdir, "sentinel")}, "mkdir"),
        ({"more": Call(os.system, "touch sentinel")}, "system"),
        ({"data": np.array([["x"] * 3072] * 4, dtype=object)}, "3 x 32 x 32"),
        ({"data": np.zeros((4, 3071), np.uint8)}, "3 x 32 x 32"),
        ({"data": np.full((4, 3072), np.nan)}, "3 x 32 x 32"),
        ({"data": [[0] * 3072] * 4}, "3 x 32 x 32"),
        ({"labels": [0, 1, 2, 10]}, "below 10"),
        ({"labels": [0, 1, 2, -1]}, "below 10"),
        ({"labels": [0, 1, 2, 2.5]}, "below 10"),
        ({"labels": [0, 1, 2]}, "3 x 32 x 32"),
        ({"labels": None}, "cannot be read"),
    ],
)
def test_a_forged_batch_with_the_right_md5_is_still_refused(
    changes: dict[str, Any], word: str, source: SimpleNamespace, monkeypatch: pytest.MonkeyPatch, workplace: Path
) -> None:
    """md5 can be forged, so the content is not trusted even if it matches."""
    source.files["data_batch_2"] = forged = pickled(batch(2, **changes))
    unpacked(source)
    known = torchvision.datasets.CIFAR10
    monkeypatch.setattr(known, "train_list", [*known.train_list[:1], ["data_batch_2", md5(forged)]])
    refused(source, "data_batch_2", word)
    assert not (workplace / "sentinel").exists()
    with pytest.raises(UserError):
        cifar.batch(Path("x"), b"no pickle", 10)


def test_sizes_that_would_fill_the_memory_are_refused_before_anything_is_read() -> None:
    for name, size, largest in (("cifar10", 224, 149), ("cifar100", 224, 149), ("digits", 1024, 861)):
        with pytest.raises(UserError, match=f"--image_size {size}") as fault:
            catalogue.load(name, Path("nowhere"), image_size=size)
        assert fault.value.code == USAGE
        assert f"at most --image_size {largest} " in fault.value.hint


def test_resizing_in_pieces_changes_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    images = torch.randint(0, 256, (1003, 8, 8, 3), dtype=torch.uint8)
    whole = torch.nn.functional.interpolate(
        images.permute(0, 3, 1, 2).float(), (12, 12), mode="bilinear", antialias=True
    )
    assert torch.equal(pixels.resize(images, 12), whole.round().clamp(0, 255).to(torch.uint8).permute(0, 2, 3, 1))
    assert pixels.resize(images, 8).equal(images)
