"""Names of classes are read from the usual forms of data.yaml, and never guessed from another."""

from __future__ import annotations

from pathlib import Path

import pytest

from engine.data.detection.class_names import read
from engine.data.detection.data_yaml import names_in
from engine.errors import UserError

GOOD = {
    "list in brackets": "names: ['ant', \"bee\", traffic light]\n",
    "list in brackets over lines": "nc: 3\nnames: [ 'ant', 'bee',\n         'traffic light', ]\nval: x\n",
    "list of lines": "names:\n  - ant\n  - 'bee'  # a comment\n\n  - traffic light\nnc: 3\n",
    "list of lines without indentation": "names:\n- ant\n- bee\n- traffic light\n",
    "numbers": "path: x\nnames:\n  0: ant\n  1: bee\n  2: traffic light\ntrain: y\n",
    "numbers in another order": 'names:\n  2: traffic light\n  0: ant\n  1: "bee"\n',
    "numbers in braces": "names: {0: ant, 1: 'bee', 2: traffic light}\n",
}


@pytest.mark.parametrize("text", GOOD.values(), ids=list(GOOD))
def test_the_usual_forms_are_read(text: str) -> None:
    assert names_in(text) == ["ant", "bee", "traffic light"]


def test_names_keep_what_stands_in_quotes() -> None:
    assert names_in("names: ['a, b', \"it's\", 'c: d', x-y, 3d, no]") == ["a, b", "it's", "c: d", "x-y", "3d", "no"]
    assert names_in("names:\n  0: C#\n  1: 12:30\n") == ["C#", "12:30"]


@pytest.mark.parametrize(
    "text",
    [
        "", "nc: 2\n", "names:\n", "names: []\n", "names: ant\n", "names: [ant, bee\n", "names: *anchor\n", "names: [*a, b]\n",
        "names: [it's, hers]\n", "names: [ant,, bee]\n", "names: [[ant], bee]\n", "names: ['a]', b]\n",
        "names: ['a # b', c]\n", "names: |\n  ant\n", "names:\n  - name: ant\n", "names:\n  - ant\n  1: bee\n",
        "names:\n  1: ant\n  2: bee\n", "names:\n  0: ant\n  0: bee\n", "names:\n  ant: 0\n", "names:\n  0:\n  1: bee\n",
        "names: [ant]\nnames: [bee]\n", "names: ['', b]\n", "names: [\"a\\tb\"]\n", "other:\n  names: [ant]\n",
    ],
)  # fmt: skip
def test_any_other_form_is_not_read(text: str, tmp_path: Path) -> None:
    assert names_in(text) is None
    (tmp_path / "data.yaml").write_text(text)
    with pytest.raises(UserError, match=r"data\.yaml: its entry `names` is missing or has") as fault:
        read(tmp_path)
    assert fault.value.code == 4
    assert "classes.txt" in fault.value.hint


def test_classes_txt_is_read_too(tmp_path: Path) -> None:
    with pytest.raises(UserError, match=r"neither data\.yaml nor classes\.txt"):
        read(tmp_path)
    (tmp_path / "data.yml").write_text("names: [ant]")
    assert read(tmp_path) == ("ant",)
    (tmp_path / "data.yml").write_text("names: *anchor")
    (tmp_path / "classes.txt").write_text("ﬂy: [1]\nbee  \n\n", encoding="utf-8")
    assert read(tmp_path) == ("ﬂy: [1]", "bee")
    for content in (b"", b"ant\n\nbee\n", b"\xff\n"):
        (tmp_path / "classes.txt").write_bytes(content)
        with pytest.raises(UserError, match=r"classes\.txt") as fault:
            read(tmp_path)
        assert fault.value.code == 4


def test_a_count_that_contradicts_the_names_is_refused(tmp_path: Path) -> None:
    (tmp_path / "data.yaml").write_text("nc: 3  # classes\nnames: [ant, bee]\n")
    with pytest.raises(UserError, match="nc is 3, but there are 2 names"):
        read(tmp_path)


def test_two_files_with_names_have_to_agree(tmp_path: Path) -> None:
    (tmp_path / "data.yaml").write_text("names: [ant, bee]")
    (tmp_path / "classes.txt").write_text("ant\nbee\n")
    assert read(tmp_path) == ("ant", "bee")
    (tmp_path / "classes.txt").write_text("bee\nant\n")
    with pytest.raises(UserError, match=r"classes\.txt names the classes bee, ant, but .*data\.yaml ant, bee") as fault:
        read(tmp_path)
    assert fault.value.code == 4


@pytest.mark.parametrize(
    ("line", "words"), [("kpt_shape: [17, 3]", "key points"), ("nc: 3", "nc is 3, but there are 2")]
)
def test_data_yaml_is_heeded_beside_classes_txt(line: str, words: str, tmp_path: Path) -> None:
    (tmp_path / "data.yaml").write_text(line)
    (tmp_path / "classes.txt").write_text("ant\nbee\n")
    with pytest.raises(UserError, match=words):
        read(tmp_path)


def test_names_are_different(tmp_path: Path) -> None:
    (tmp_path / "data.yaml").write_text("names: [ant, bee, ant]")
    with pytest.raises(UserError, match=r"data\.yaml: classes 0 and 2 have the same name, ant"):
        read(tmp_path)
