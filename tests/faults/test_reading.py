"""Damaged, foreign and hostile files: each is refused with exit 3 and a message, none is accepted silently."""

from __future__ import annotations

import os
import random
import signal
import struct
import zipfile
from pathlib import Path
from typing import Any

import pytest
import torch

from engine.checkpoint import archive, format as checkpoint
from engine.errors import BAD_CHECKPOINT, UserError
from tests.conftest import refused
from tests.tools.forge import in_child, packed, rezipped, same_arrays, tiny, two_archives


def outcome(path: Path) -> Any:
    """Return the checkpoint in a file, or None if it is refused properly."""
    try:
        return checkpoint.load(path)
    except UserError as fault:
        if fault.code == BAD_CHECKPOINT:
            return None
        raise


def silently_wrong(path: Path, flips: int, seed: int) -> tuple[int, int]:
    """Flip one bit in each of `flips` files; return how many are accepted with different contents, and how many are refused."""
    content = {**tiny(), "state_dict": {"a": torch.randn(8, 8), "b": torch.randn(10)}}  # few tensors: quick to load
    whole, draws, wrong, refusals = archive.to_bytes(content), random.Random(seed), 0, 0
    plain = {key: value for key, value in content.items() if key != "state_dict"}
    path.write_bytes(whole)
    with path.open("r+b", buffering=0) as file:
        for place in (draws.randrange(8 * len(whole)) for _ in range(flips)):
            os.pwrite(file.fileno(), bytes([whole[place // 8] ^ 1 << place % 8]), place // 8)
            found = outcome(path)
            os.pwrite(file.fileno(), whole[place // 8 :][:1], place // 8)
            refusals += found is None
            if found is not None:
                read = found.to_dict()
                wrong += not (same_arrays(read.pop("state_dict"), content["state_dict"]) and read == plain)
    return wrong, refusals


def test_2000_flipped_bits(tmp_path: Path) -> None:
    wrong, refusals = silently_wrong(tmp_path / "a.pth", 2000, 0)
    assert wrong == 0
    assert refusals > 800  # the other flips hit padding


@pytest.mark.slow
def test_20000_flipped_bits(tmp_path: Path) -> None:
    wrong, refusals = silently_wrong(tmp_path / "a.pth", 20_000, 1)
    assert wrong == 0
    assert refusals > 8_000


def test_300_truncations_and_300_blocks_of_zeros(tmp_path: Path) -> None:
    path, content = tmp_path / "a.pth", tiny()
    whole = archive.to_bytes(content)
    places = [place * len(whole) // 300 for place in range(300)]
    for place in places:
        path.write_bytes(whole[:place])
        refused(path)
    for place in places:
        path.write_bytes(whole[:place] + bytes(256) + whole[place + 256 :])
        found = outcome(path)
        assert found is None or same_arrays(found.state_dict, content["state_dict"])


FOREIGN = {
    "empty": (b"", "an empty file"),
    "text": (b"epoch 1: 80 %", "not a torch file"),
    "safetensors": (b"\x02\x00\x00\x00\x00\x00\x00\x00{}", "a safetensors file by its content"),
    "html": (b"<!DOCTYPE html><title>404</title>", "looks like an HTML page"),
    "jpeg": (b"\xff\xd8\xff\xe0\x00\x10JFIF", "looks like a picture"),
    "lfs": (b"version https://git-lfs.github.com/spec/v1\noid sha256:0", "git-LFS pointer"),
}


@pytest.mark.parametrize("kind", [*FOREIGN, "folder", "fifo", "dangling link", "device"])
def test_nine_things_that_are_no_checkpoint(kind: str, tmp_path: Path) -> None:
    path = tmp_path / "a.pth"
    if kind in FOREIGN:
        path.write_bytes(FOREIGN[kind][0])
        refused(path, FOREIGN[kind][1])
    elif kind == "folder":
        refused(tmp_path, "not a regular file")
    elif kind == "fifo":
        os.mkfifo(path)
        signal.alarm(10)  # opening it would wait for a writer forever
        refused(path, "not a regular file")
        signal.alarm(0)
    elif kind == "dangling link":
        path.symlink_to(tmp_path / "nowhere")
        refused(path, "a link to a missing file")
    else:
        refused(Path("/dev/null"), "not a regular file")


def test_torch_reads_the_archive_that_was_checked(tmp_path: Path) -> None:
    """The file holds two archives: zipfile reads zeros, torch alone would read ones."""
    path = tmp_path / "a.pth"
    zeros, ones = (rezipped(archive.to_bytes({"w": torch.full((1000,), value)})) for value in (0.0, 1.0))
    path.write_bytes(two_archives(zeros, ones))
    assert torch.load(path, weights_only=True)["w"].tolist() == [1.0] * 1000
    found = archive.load(path)
    assert found.value["w"].tolist() == [0.0] * 1000
    assert found.checksums


def test_names_that_torch_takes_for_one_are_refused(tmp_path: Path) -> None:
    path = tmp_path / "a.pth"
    path.write_bytes(archive.to_bytes(tiny()))
    with zipfile.ZipFile(path, "a") as added:
        added.writestr("archive/DATA/0", b"again")
    refused(path, "of the same name")


def many_members(path: Path) -> None:
    with zipfile.ZipFile(path, "a") as added:
        for number in range(10_001):
            added.writestr(f"archive/more/{number}", b"")


@pytest.mark.filterwarnings("ignore:Duplicate name")
@pytest.mark.parametrize("kind", ["deflated", "bomb", "members", "double", "leads out", "claims"])
def test_six_archives_that_torch_never_sees(kind: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch, "load", lambda *args, **kwargs: pytest.fail("torch has seen it"))
    path, whole = tmp_path / "a.pth", archive.to_bytes(tiny())
    path.write_bytes(whole)
    word = "compressed"
    if kind == "deflated":
        path.write_bytes(rezipped(whole, kind=zipfile.ZIP_DEFLATED))
    elif kind == "bomb":  # 64 MiB of zeros in 64 kB
        zeros = bytes(2**20)
        with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as added, added.open("a/data/0", "w") as member:
            for _ in range(64):
                member.write(zeros)
    elif kind == "members":
        many_members(path)
        word = "too many"
    elif kind in ("double", "leads out"):
        with zipfile.ZipFile(path, "a") as added:
            added.writestr("archive/data/0" if kind == "double" else "archive/../../x", b"again")
        word = "of the same name" if kind == "double" else "lead out"
    else:  # the directory says that a member is larger than the whole file
        raw = bytearray(whole)
        entry = raw.index(b"PK\x01\x02")
        raw[entry + 20 : entry + 28] = struct.pack("<II", 2**30, 2**30)
        path.write_bytes(raw)
        word = "larger than its file"
    in_child(lambda: bool(refused(path, word)), memory=500 * 2**20)


@pytest.mark.parametrize("container", ["zip", "legacy"])
@pytest.mark.parametrize("kind", ["expanded", "overlapping", "shared", "a few"])
def test_tensors_that_claim_more_than_is_stored(kind: str, container: str, tmp_path: Path) -> None:
    small = torch.ones(1000)
    weights = {
        "expanded": lambda: {"w": small[:1].expand(100_000, 100_000)},
        "overlapping": lambda: {"w": small.as_strided((500, 500), (1, 1))},
        "a few": lambda: {"w": torch.ones(1).expand(7)},
        "shared": lambda: {
            f"w{n}": small[n:] for n in range(100)
        },  # each fits; together they are 95 times what is stored
    }[kind]()
    path = tmp_path / "a.pth"
    path.write_bytes(packed({**tiny(), "state_dict": weights, "format": None}, container))
    in_child(lambda: bool(refused(path)), memory=500 * 2**20)


def test_an_old_file_cannot_ask_for_memory(tmp_path: Path) -> None:
    """Its pickle states the length of each storage before any byte of it is read."""
    path, raw = tmp_path / "a.pth", packed({"state_dict": {"w": torch.ones(1000)}}, "legacy")
    assert raw.count(struct.pack("<H", 1000)) >= 2
    path.write_bytes(raw.replace(b"M" + struct.pack("<H", 1000), b"\x8a\x05" + (2**38).to_bytes(5, "little")))
    in_child(lambda: bool(refused(path)), memory=500 * 2**20)
