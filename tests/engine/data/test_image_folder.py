"""What a folder of pictures says of itself, and that it is listed once."""

from __future__ import annotations

from pathlib import Path

import pytest
from PIL import Image

from engine.data import catalogue, image_folder
from engine.data.image_folder import label, listed
from engine.errors import BAD_DATA, UserError


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


@pytest.mark.parametrize("limit", [0, 10**9])
def test_a_folder_is_listed_once(folder: Path, limit: int, monkeypatch: pytest.MonkeyPatch) -> None:
    """Streamed or in memory."""
    parts, real = list[str](), image_folder.folder_files
    monkeypatch.setattr(catalogue, "IN_MEMORY_BYTES", limit)
    monkeypatch.setattr(image_folder, "folder_files", lambda root, part: parts.append(part) or real(root, part))
    data = catalogue.load("imagefolder", folder)
    assert (len(data.train), len(data.test), parts) == (2, 2, ["train", "test"])
