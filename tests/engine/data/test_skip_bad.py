"""--skip_bad leaves out, counts and names unreadable pictures; without it the first one is an error with its name."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest

from engine.data import catalogue
from engine.data.image_folder import listed
from engine.data.skip_bad import without_bad
from engine.errors import BAD_DATA, UserError
from tests.tools import folders

SHORT = ("--dataset", "imagefolder", "--data", "pets", "--image_size", "8", "--cfg", "8,8,8,8,8,8,8,8", "--epochs", "1",
         "--train_batch_size", "4", "--cpu")  # fmt: skip


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """Write five and two pictures of two classes; the first of each class is bad."""
    folders.write(tmp_path / "pets", {"train": 5, "test": 2}, ("ant", "bee"), 9)
    (tmp_path / "pets/train/ant/0.png").write_bytes(b"no picture")
    whole = (tmp_path / "pets/train/bee/0.png").read_bytes()
    (tmp_path / "pets/train/bee/0.png").write_bytes(whole[:60])
    return tmp_path / "pets"


@pytest.mark.parametrize("workers", [0, 2])
def test_bad_pictures_are_left_out_counted_and_named(
    workers: int, folder: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    found = without_bad(listed(folder), workers)
    assert [path.name for path, _ in found.train] == ["1.png", "2.png", "3.png", "4.png"] * 2
    assert len(found.test) == 4
    said = capsys.readouterr().err
    assert "--skip_bad: 2 of 14 pictures left out" in said
    assert "train/ant/0.png: an unknown picture format" in said
    assert "train/bee/0.png" in said


@pytest.mark.parametrize("limit", [0, 10**9], ids=["streamed", "in memory"])
def test_a_training_goes_on_without_them(
    limit: int, folder: Path, command: Callable, workplace: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(catalogue, "IN_MEMORY_BYTES", limit)
    folder.rename(workplace / "pets")
    refused = command("prune.train", *SHORT)
    assert refused.code == BAD_DATA
    assert "/0.png" in refused.err
    done = command("prune.train", *SHORT, "--skip_bad")
    assert done.code == 0, done.err
    assert "2 of 14 pictures left out" in done.err
    assert "pets: 8 training and 4 test pictures" in done.err


def test_a_class_that_loses_all_is_refused(folder: Path) -> None:
    for path in (folder / "test" / "bee").iterdir():
        path.write_bytes(b"")
    with pytest.raises(UserError, match="no picture of bee in test/ can be read") as fault:
        without_bad(listed(folder), 0)
    assert fault.value.code == BAD_DATA


def test_sets_by_name_have_no_bad_ones(command: Callable) -> None:
    done = command("prune.train", "--dataset", "digits", "--skip_bad")
    assert done.code == 2
    assert "--skip_bad is for folders of pictures, not for digits" in done.err
