"""The information about a folder of pictures, and that it is listed once."""

from __future__ import annotations

from pathlib import Path

import pytest
from PIL import Image

from engine.data import catalogue, image_folder
from engine.data.image_folder import label, listed
from engine.data.skip_bad import without_bad
from engine.errors import BAD_DATA, USAGE, UserError


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    for part in ("train", "test"):
        for name in ("ant", "bee"):
            (tmp_path / "pets" / part / name).mkdir(parents=True)
            Image.new("RGB", (8, 8)).save(tmp_path / "pets" / part / name / "0.png")
    return tmp_path / "pets"


def test_a_folder_is_called_by_its_description_else_by_its_name(folder: Path) -> None:
    assert label(folder) == catalogue.load("imagefolder", folder).info.label == "pets"
    (folder / "dataset.json").write_text('{"label": "Pets of 2026", "notes": ["more"]}')
    assert label(folder) == catalogue.load("imagefolder", folder).info.label == "Pets of 2026"
    known = folder.rename(folder.with_name("cifar10-jpeg"))
    assert label(known) == "Pets of 2026"
    (known / "dataset.json").unlink()
    assert label(known) == listed(known).info(8).label == "CIFAR-10 (JPEG copy)"


@pytest.mark.parametrize(
    "content",
    [
        b"", b"{", b"[]", b"{}", b'{"label": 3}', b'{"label": " "}', b'{"label": "a\\nb"}', b"\xff\xfe", b"[" * 9_999,
        b'{"label": "' + b"x" * 101 + b'"}', b'{"label": "x", "notes": "' + b"x" * 10_000 + b'"}',
    ],
    ids=lambda content: content[:12],
)  # fmt: skip
def test_a_description_of_another_form_is_refused(content: bytes, folder: Path) -> None:
    (folder / "dataset.json").write_bytes(content)
    with pytest.raises(UserError, match=rf"^cannot read {folder}/dataset\.json: ") as fault:
        catalogue.load("imagefolder", folder)
    assert (fault.value.code, fault.value.hint) == (BAD_DATA, 'write {"label": "NAME"} in it, or remove it')


def test_where_there_is_no_test_folder_val_is_judged_on(folder: Path) -> None:
    """This is ImageNet's own layout. Errors name val/; beside a test/ folder val/ is ignored."""
    assert listed(folder).tested == "test"
    (folder / "val/cat").mkdir(parents=True)
    assert listed(folder).tested == "test"
    (folder / "val/cat").rmdir()
    (folder / "val").rmdir()
    (folder / "test").rename(folder / "val")
    found = listed(folder)
    assert ([path.parts[-3] for path, _ in found.test], found.tested) == (["val", "val"], "val")
    assert image_folder.has_folders(folder)
    with pytest.raises(UserError, match=f"{folder} holds train/ and val/ folders, but no CIFAR-10"):
        catalogue.load("auto", folder)
    (folder / "val/bee/0.png").write_text("no picture")
    with pytest.raises(UserError, match="no picture of bee in val/ can be read"):
        without_bad(found, 0)
    (folder / "val/bee").rename(folder / "val/cat")
    with pytest.raises(
        UserError, match=f"{folder}/train and {folder}/val hold different classes: bee is in train only"
    ):
        listed(folder)


def test_the_side_is_the_first_pictures_but_224_by_imagenets_recipe(folder: Path) -> None:
    assert listed(folder).native_size() == catalogue.describe("imagefolder", None, folder).image_size == 8
    assert catalogue.describe("imagefolder", None, folder, "imagenet").image_size == 224
    data = catalogue.load("imagefolder", folder, crop="imagenet", workers=0)
    assert (data.info.image_size, data.info.crop) == (224, "imagenet")
    assert next(data.test.batches(9))[0].shape == (2, 3, 224, 224)


@pytest.mark.parametrize("name", ["digits", "cifar10", "auto", "fashion_mnist"])
def test_other_sets_refuse_imagenets_recipe_by_name(name: str, tmp_path: Path) -> None:
    with pytest.raises(UserError, match=f"^--crop imagenet is for folders of pictures, not for {name}$") as fault:
        catalogue.load(name, tmp_path, crop="imagenet")
    assert fault.value.code == USAGE


@pytest.mark.parametrize("limit", [0, 10**9])
def test_a_folder_is_listed_once(folder: Path, limit: int, monkeypatch: pytest.MonkeyPatch) -> None:
    """This holds for streamed folders and for folders in memory."""
    parts, real = list[str](), image_folder.folder_files
    monkeypatch.setattr(catalogue, "IN_MEMORY_BYTES", limit)
    monkeypatch.setattr(image_folder, "folder_files", lambda root, part: parts.append(part) or real(root, part))
    data = catalogue.load("imagefolder", folder)
    assert (len(data.train), len(data.test), parts) == (2, 2, ["train", "test"])
