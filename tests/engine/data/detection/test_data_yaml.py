"""A data.yaml that names other folders of pictures than those that are read is told."""

from __future__ import annotations

from pathlib import Path

import pytest

from engine.data.detection.data_yaml import say_other_places


@pytest.mark.parametrize(
    ("train", "told"),
    [
        ("images/train", ""), ("../train/images", "../train/images"), ("./images/train  # these", ""),
        ("'images/train'", ""), ("/elsewhere/images/train", "/elsewhere/images/train"), ("train.txt", "train.txt"),
        ("", "no folder"), ("{root}/images/train", ""), ("[images/train]", ""), ("\n- images/train", ""),
        ("[a/images, b/images]", "a/images, b/images"), ("\n  - a/images\n  - b/images", "a/images, b/images"),
    ],
)  # fmt: skip
def test_other_places_of_pictures_are_told(
    train: str, told: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "data.yaml").write_text(f"path: x\ntrain: {train.format(root=tmp_path)}\nval: images/val\n")
    say_other_places(tmp_path, {"train": tmp_path / "images/train", "val": tmp_path / "images/val"})
    said = f"notice: {tmp_path}/data.yaml: train is {told}, but the pictures of {tmp_path}/images/train are read, below --data\n"
    assert capsys.readouterr().err == (said if told else "")


def test_a_link_is_the_place_that_it_is_named_as(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "elsewhere").mkdir()
    (tmp_path / "train").symlink_to(tmp_path / "elsewhere")
    (tmp_path / "data.yaml").write_text("train: train\n")
    say_other_places(tmp_path, {"train": tmp_path / "train"})
    assert capsys.readouterr().err == ""


def test_roboflows_places_are_those_that_are_read(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "data.yaml").write_text("train: ../train/images\nval: ../valid/images\n")
    say_other_places(tmp_path, {"train": tmp_path / "train/images", "val": tmp_path / "valid/images"})
    assert capsys.readouterr().err == ""
