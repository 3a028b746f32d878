"""The names of classes and folders are different lines of text, which every file and table can hold."""

from __future__ import annotations

from pathlib import Path

import pytest

from engine.data import catalogue
from engine.data.names import class_names
from engine.errors import BAD_DATA, UserError
from tests.tools import folders
from tests.tools.boxed import coco_folder, yolo_folder


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
