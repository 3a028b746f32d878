"""The reader of a new data set has to return pictures and labels; anything else ends in an error that names it."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch

from engine.data import catalogue
from engine.data.contract import class_names
from engine.data.info import DataInfo
from engine.errors import BAD_DATA, UserError
from tests.tools import folders
from tests.tools.boxed import coco_folder, yolo_folder

INFO = DataInfo("dark", "noise", 10, 8, (0.5,) * 3, (0.25,) * 3, pad=1)
PART = (torch.zeros(4, 8, 8, 3, dtype=torch.uint8), torch.arange(4))


def part(images: Any = PART[0], labels: Any = PART[1]) -> tuple[Any, Any]:
    return images, labels


@pytest.mark.parametrize(
    ("found", "words"),
    [
        (None, "it does not return"),
        ((PART, PART), "it does not return"),
        ((PART, PART, {}), "it does not return"),
        ((PART[0], PART, INFO), "its training part is not two tensors"),
        ((part(PART[0].numpy()), PART, INFO), "its training part is not two tensors"),
        ((part(PART[0].float()), PART, INFO), r"pictures are float32 \(4, 8, 8, 3\), not uint8 \(N, 8, 8, 3\)"),
        ((part(PART[0].permute(0, 3, 1, 2)), PART, INFO), r"pictures are uint8 \(4, 3, 8, 8\)"),
        ((PART, part(PART[0][:0], PART[1][:0]), INFO), r"its test pictures are uint8 \(0, 8, 8, 3\)"),
        ((part(labels=PART[1][:3]), PART, INFO), r"its training labels are int64 \(3,\), not int64 \(4,\)"),
        ((part(labels=PART[1].int()), PART, INFO), r"its training labels are int32 \(4,\)"),
        ((PART, part(labels=PART[1] + 7), INFO), "its test labels have 10, not only 0 to 9"),
        ((PART, part(labels=PART[1] - 1), INFO), "its test labels have -1, not only 0 to 9"),
    ],
)
def test_what_a_reader_must_not_return(found: Any, words: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(catalogue.READERS, "dark", lambda root, size: found)
    with pytest.raises(UserError, match=f"the reader of --dataset dark: .*{words}") as refused:
        catalogue.load("dark", image_size=8)
    assert refused.value.code == BAD_DATA


def test_what_a_reader_may_return(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(catalogue.READERS, "dark", lambda root, size: (PART, PART, INFO))
    data = catalogue.load("dark", image_size=8)
    assert (len(data.train), len(data.test)) == (4, 4)


@pytest.mark.parametrize(
    ("name", "words"),
    [
        ("a\nb", r"the class name 'a\\nb' is no line of text"),
        ("caf\udce9", r"the class name 'caf\\udce9' is no line of text"),
        ("a\u2028b", "the class name .* is no line of text"),
        ("\x1b[1m", "the class name .* is no line of text"),
        (" ", "class 1 has no name"),
        ("ant", "classes 0 and 1 have the same name, ant"),
    ],
)
def test_names_of_classes_are_different_lines_of_text(name: str, words: str) -> None:
    with pytest.raises(UserError, match=f"^pets: {words}") as refused:
        class_names(["ant", name], Path("pets"))
    assert refused.value.code == BAD_DATA


def test_names_in_any_script_may_be_given() -> None:
    names = ("蚂蚁", "abeille à miel", "\U0001f41d\u200d\u2642", "a|b", "a\xa0b")
    assert class_names(names, Path("pets")) == names


def test_every_folder_has_such_names(tmp_path: Path) -> None:
    pets = folders.write(tmp_path / "pets", {"train": 1, "test": 1}, ("ant", "a\nb"), 8)
    coco, yolo = coco_folder(tmp_path / "coco"), yolo_folder(tmp_path / "yolo")
    content = (coco / "train.json").read_text()
    (coco / "train.json").write_text(content.replace('"ant"', r'"a\nb"'))
    (yolo / "classes.txt").write_text("a\x07b\nbee\n")
    (yolo / "data.yaml").unlink()
    for name, root in (("imagefolder", pets), ("coco", coco), ("yolo", yolo)):
        for read in (catalogue.load, lambda name, root: catalogue.describe(name, None, root)):
            with pytest.raises(UserError, match="is no line of text") as refused:
                read(name, root)
            assert refused.value.code == BAD_DATA


def test_a_folder_has_such_a_name_or_a_label(tmp_path: Path) -> None:
    pets = folders.write(tmp_path / "a\nb", {"train": 1, "test": 1}, ("ant", "bee"), 8)
    with pytest.raises(UserError, match="is no line of text") as refused:
        catalogue.load("imagefolder", pets)
    assert "dataset.json" in refused.value.hint
    (pets / "dataset.json").write_text('{"label": "pets"}')
    assert catalogue.load("imagefolder", pets).info.label == "pets"
