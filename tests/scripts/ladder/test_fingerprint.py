"""The fingerprint of a ladder."""

from __future__ import annotations

from pathlib import Path

import pytest
from PIL import Image

from engine.data import image_folder
from engine.errors import UserError
from scripts.ladder import fingerprint
from tests.tools.ladder import options


def test_a_folder_is_listed_once_and_told_by_its_pictures(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for part, count in (("train", 3), ("test", 2)):
        for name in ("ant", "bee"):
            (tmp_path / part / name).mkdir(parents=True)
            for number in range(count):
                Image.new("RGB", (8, 8)).save(tmp_path / part / name / f"{number}.png")
    parts, real = list[str](), image_folder.folder_files
    monkeypatch.setattr(image_folder, "folder_files", lambda root, part: parts.append(part) or real(root, part))
    found = fingerprint.of(options(dataset="imagefolder", root=tmp_path))
    assert parts == ["train", "test"]
    assert found["data set"] == "imagefolder 6 + 4 pictures of 2 classes"
    assert (found["pictures"], found["classes"]) == ("6 to train on, 4 to judge on", ["ant", "bee"])


def test_pictures_cut_otherwise_are_another_ladder(tmp_path: Path) -> None:
    """It also differs from the ladder of a file older than the flag."""
    said = fingerprint.of(options())
    old = {key: value for key, value in said.items() if key != "--crop"}
    fingerprint.compare_or_write(tmp_path / "ladder.json", old, begun=False)
    fingerprint.compare_or_write(tmp_path / "ladder.json", said, begun=True)
    with pytest.raises(UserError, match="another ladder: --crop: default -> imagenet"):
        fingerprint.compare_or_write(tmp_path / "ladder.json", {**said, "--crop": "imagenet"}, begun=True)
