"""No file of a folder is left out in silence, and no pipe is waited for."""

from __future__ import annotations

import os
import signal
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from PIL import Image

from engine.data import catalogue
from engine.data.detection import yolo
from engine.data.image_folder import label, listed
from engine.data.pictures import decode
from engine.errors import BAD_DATA, UserError
from tests.tools import folders
from tests.tools.boxed import yolo_folder


@pytest.fixture
def pets(tmp_path: Path) -> Path:
    return folders.write(tmp_path / "pets", {"train": 2, "test": 1}, ("ant", "bee"), 8)


def test_gifs_and_pictures_in_subfolders_are_read(pets: Path) -> None:
    there = pets / "train/ant"
    for suffix in ("gif", "jfif", "JPE", "pbm"):
        Image.new("RGB", (8, 8), "white").convert("1" if suffix == "pbm" else "P" if suffix == "gif" else "RGB").save(
            there / f"{suffix}.{suffix}", {"jfif": "JPEG", "JPE": "JPEG", "pbm": "PPM", "gif": "GIF"}[suffix]
        )
    (there / "old/older").mkdir(parents=True)
    (there / "1.png").rename(there / "old/older/1.png")
    names = [str(path.relative_to(there)) for path, number in listed(pets).train if not number]
    assert names == ["0.png", "JPE.JPE", "gif.gif", "jfif.jfif", "old/older/1.png", "pbm.pbm"]
    data = catalogue.load("imagefolder", pets, image_size=8)
    assert torch.equal(data.train.images[2], torch.full((8, 8, 3), 255, dtype=torch.uint8))


def test_what_is_left_out_of_a_folder_is_counted_and_named(pets: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (pets / "train/note.txt").write_text("")
    (pets / "train/bee/.hidden.heic").write_text("")
    listed(pets)
    said = f"notice: {pets}/train: 1 file is left out, note.txt; suffixes that are read: .bmp .gif"
    assert capsys.readouterr().err.startswith(said)
    (pets / "train/bee/0.heic").write_text("")
    (pets / "train/bee/more").symlink_to(pets / "test")
    found = listed(pets)
    assert len(found.train) == 4
    said = f"notice: {pets}/train: 3 files are left out, the first is note.txt; suffixes that are read: .bmp"
    assert capsys.readouterr().err.startswith(said)


def test_what_is_left_out_of_a_yolo_folder_is_counted_and_named(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    root = yolo_folder(tmp_path / "insects")
    (root / "images/train/0.heic").write_text("")
    (root / "labels/val/1.xml").write_text("")
    yolo.read(root)
    said = capsys.readouterr().err
    assert f"{root}/images/train: 1 file is left out, 0.heic; suffixes that are read:" in said
    assert f"{root}/labels/val: 1 file is left out, 1.xml; suffixes that are read: .txt\n" in said


def test_labels_with_a_suffix_in_capitals_are_read(tmp_path: Path) -> None:
    root = yolo_folder(tmp_path / "insects")
    before = yolo.read(root)[0].objects.of(1)["labels"].tolist()
    small, large = root / "labels/train/1.txt", root / "labels/train/1.TXT"
    small.rename(large)
    assert yolo.read(root)[0].objects.of(1)["labels"].tolist() == before != []
    small.write_text("")
    with pytest.raises(UserError, match=r"1\.TXT and .*1\.txt are labels of the same picture"):
        yolo.read(root)


@pytest.mark.parametrize(
    ("place", "read"),
    [
        ("train/ant/0.png", lambda root: decode(root / "train/ant/0.png")),
        ("dataset.json", label),
        ("train/ant/0.png", lambda root: catalogue.load("imagefolder", root, image_size=8)),
    ],
)
def test_a_pipe_is_refused_by_name(place: str, read: Callable[[Path], object], pets: Path) -> None:
    refused_pipe(pets / place, lambda: read(pets))


def test_a_pipe_as_labels_is_refused_by_name(tmp_path: Path) -> None:
    root = yolo_folder(tmp_path / "insects")
    refused_pipe(root / "labels/train/1.txt", lambda: yolo.read(root))


def refused_pipe(path: Path, read: Callable[[], object]) -> None:
    path.unlink(missing_ok=True)
    os.mkfifo(path)
    signal.alarm(10)  # opening it would wait for a writer forever
    try:
        with pytest.raises(UserError, match=f"^cannot read {path}: it is not a regular file$") as fault:
            read()
    finally:
        signal.alarm(0)
    assert fault.value.code == BAD_DATA
