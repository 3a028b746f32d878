"""A later stage reads from its file whether pictures are mirrored, and the name of their folder."""

from __future__ import annotations

from pathlib import Path

import pytest
from PIL import Image

from tests.conftest import assert_refused
from tests.tools.contents import raw

SMALL = ("--cfg", "8,8,8,8,8,8,8,8", "--image_size", "8", "--epochs", "1", "--train_batch_size", "4", "--cpu")


@pytest.fixture
def pets(workplace: Path) -> Path:
    for number, (part, name) in enumerate((p, n) for p in ("train", "test") for n in ("ant", "bee")):
        place = workplace / "pets" / part / name
        place.mkdir(parents=True)
        for shade in range(4):
            Image.new("RGB", (8, 8), (shade * 60, number, 0)).save(place / f"{shade}.png")
    return Path("pets")


def flip(path: str) -> bool:
    return raw(Path(path))["dataset"]["flip"]


def test_mirroring_is_said_kept_in_the_file_and_taken_from_it(command, pets: Path) -> None:
    first = command("prune.train", "--dataset", "imagefolder", "--data", pets, "--no-flip", *SMALL)
    assert "8 training and 8 test pictures, not mirrored; " in first.err
    assert not flip("models_save/nin.pth")
    refine = ("prune.train", "--refine", "models_save/nin.pth", "--data", pets, *SMALL[2:])
    assert "pictures, not mirrored; " in command(*refine).err
    assert not flip("models_save/nin_refine.pth")
    assert "pictures, mirrored in training; " in command(*refine, "--flip").err
    assert flip("models_save/nin_refine.pth")


def test_a_folder_that_is_not_given_again_is_called_by_its_name(command, pets: Path) -> None:
    assert command("prune.train", "--dataset", "imagefolder", "--data", pets, *SMALL).code == 0
    done = command("prune.train", "--refine", "models_save/nin.pth", *SMALL[2:])
    assert_refused(done, 4, "no pictures under data/train/<class>/")
    assert done.err.splitlines()[-1] == "hint: the file was trained on the picture folder pets: add --data DIR"
    (pets / "test/bee/0.png").write_text("no picture")
    done = command("prune.train", "--refine", "models_save/nin.pth", "--data", pets, *SMALL[2:])
    assert_refused(done, 4, "cannot read pets/test/bee/0.png")
    assert "remove or replace" in done.err.splitlines()[-1]
