"""YOLO folders: rows by hand, common layouts, and an error with a name for every wrong row and file."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from PIL import Image

from engine.data import catalogue
from engine.data.detection import coco, yolo
from engine.errors import UserError
from tests.tools.boxed import SIDES, coco_folder, scene, yolo_folder

CPU = torch.device("cpu")


@pytest.fixture
def root(tmp_path: Path) -> Path:
    return yolo_folder(tmp_path / "insects")


def labels(root: Path, number: int = 1, part: str = "train") -> Path:
    return root / "labels" / part / f"{number}.txt"


def test_boxes_are_those_of_the_same_pictures_as_coco_has_them(
    root: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (train, test, names), (other, others, same) = yolo.read(root), coco.read(coco_folder(tmp_path / "coco"))
    assert names == same == ("ant", "bee")
    for one, two, count in ((train, other, 10), (test, others, 4)):
        assert (
            [path.name for path in one.files] == [path.name for path in two.files] == [f"{n}.png" for n in range(count)]
        )
        assert one.objects.ends.tolist() == two.objects.ends.tolist()
        assert one.objects.labels.tolist() == two.objects.labels.tolist()
        assert one.objects.boxes == pytest.approx(two.objects.boxes, abs=1e-6)
        assert one.objects.area == pytest.approx(two.objects.area * 2, abs=1e-5)  # which are halved there
    said = [f"notice: {root}/labels/{part}: 1 of {count} pictures have no labels: treated as empty"
            for part, count in (("train", 10), ("val", 4))]  # fmt: skip
    assert capsys.readouterr().err.splitlines() == said


def test_pictures_without_objects_are_trained_and_judged_on(root: Path) -> None:
    data = catalogue.load("yolo", root, CPU, 96, workers=0)
    assert (data.info.name, data.info.label, data.info.names, data.info.task) == (
        "yolo",
        "insects",
        ("ant", "bee"),
        "detection",
    )
    counts = [len(target["labels"]) for _, targets in data.test.batches(3) for target in targets]
    assert counts == [len(scene(number)[0]) for number in range(4)]
    _, targets = next(data.train.training_batches(10, 1, 0))
    assert sum(not len(target["labels"]) for target in targets) == 3
    _, targets = next(data.test.batches(4))
    assert targets[1]["boxes"].tolist() == [pytest.approx([6, 9.6, 30, 48], abs=1e-3)]
    assert targets[1]["area"].tolist() == [pytest.approx(24 * 38.4, abs=0.1)]


def test_the_layout_of_roboflow_is_found(root: Path, tmp_path: Path) -> None:
    there = tmp_path / "exported"
    for part, name in (("train", "train"), ("val", "valid")):
        (there / name).mkdir(parents=True)
        for kind in ("images", "labels"):
            (root / kind / part).rename(there / name / kind)
    (there / "data.yaml").write_text("names: ['ant', 'bee']\nnc: 2\nroboflow:\n  version: 1\n")
    train, test, _ = yolo.read(there)
    assert (len(train.files), len(test.files), test.files[1]) == (10, 4, there / "valid" / "images" / "1.png")


def test_pictures_may_lie_in_folders_of_their_own(root: Path) -> None:
    for kind, name in (("images", "1.png"), ("labels", "1.txt")):
        folder = root / kind / "train" / "first"
        folder.mkdir()
        (root / kind / "train" / name).rename(folder / name)
    train, _, _ = yolo.read(root)
    number = train.files.index(root / "images" / "train" / "first" / "1.png")
    assert train.objects.of(number)["labels"].tolist() == scene(1)[1]


def test_a_polygon_becomes_its_box(root: Path) -> None:
    labels(root).write_text("1 0.5 0.1 0.7 0.3 0.5 0.6 0.25 0.3\n0 0.1 0.1 0.2 0.1 0.2 0.2 0.15 0.25 0.1 0.2\n")
    found = yolo.read(root)[0].objects.of(1)
    assert found["labels"].tolist() == [1, 0]
    assert found["boxes"].tolist() == [pytest.approx([0.25, 0.1, 0.7, 0.6]), pytest.approx([0.1, 0.1, 0.2, 0.25])]


def test_rows_that_are_there_twice_are_left_out_and_counted(root: Path, capsys: pytest.CaptureFixture[str]) -> None:
    row = "0 0.5 0.5 0.2 0.2\n"
    labels(root).write_text(row + row + "1 0.5 0.5 0.2 0.2\n" + "0.0 0.50 0.5 0.2 0.2\n")
    assert yolo.read(root)[0].objects.of(1)["labels"].tolist() == [0, 1]
    said = f"notice: {root}/labels/train: 2 rows repeat another row of their file and were left out"
    assert said in capsys.readouterr().err.splitlines()


def test_rows_that_reach_out_by_rounding_are_cut_and_counted(root: Path, capsys: pytest.CaptureFixture[str]) -> None:
    labels(root).write_text("0 0.095 0.5 0.2 1.005\n\n1 0.9000001 0.5 0.2 0.2\n")
    assert yolo.read(root)[0].objects.of(1)["boxes"].tolist() == [
        pytest.approx([0, 0, 0.195, 1]),
        pytest.approx([0.8, 0.4, 1, 0.6]),
    ]
    count = sum(len(scene(number)[0]) for number in range(10)) + 1
    said = f"notice: {root}/labels/train: 1 of {count} boxes reach beyond their pictures by rounding; clipped"
    assert said in capsys.readouterr().err.splitlines()


def test_decimal_numbers_of_any_form_are_read(root: Path) -> None:
    labels(root).write_text("0 +0.5 5e-1 .2 1E-1\n1.0 5.e-1 0.5 0.2 0.1\n")
    found = yolo.read(root)[0].objects.of(1)
    assert found["labels"].tolist() == [0, 1]
    assert found["boxes"].tolist() == [pytest.approx([0.4, 0.45, 0.6, 0.55])] * 2


BAD_ROWS = {
    "1.0371 0.5 0.1 0.1": "column 2 (centre x): 1.0371 is not between 0 and 1",
    "0.5 -0.04 0.1 0.1": "column 3 (centre y): -0.04 is not between 0 and 1",
    "300 200 20 30": "column 2 (centre x): 300 is not between 0 and 1",
    "0.95 0.5 0.2 0.1": "the box from 0.85, 0.45 to 1.05, 0.55 lies outside its picture, 1 x 1 in fractions of its sides",
    "0.5 0.5 0 0.1": "the box from 0.5, 0.45 to 0.5, 0.55 has no width or no height",
    "0.5 0.5 0.1": "it has 4 numbers",
    "0.5 0.5 0.1 0.1 0.9": "it has 6 numbers",
    "0.1 0.1 0.2 0.2 0.3 0.1": "it has 7 numbers",
    "0.1 0.1 0.2 0.2 0.3 0.1 0.4 0.4 0.5": "it has 10 numbers",
    "0.5 0.5 nan 0.1": "column 4 (width): nan is not finite",
    "0.5 0.5 0.1 wide": "column 5 (height): 'wide' is not a number",
    "0.5,0.5,0.1,0.1": "column 2: '0.5,0.5,0.1,0.1' is not a number",
    "0.4_2 0.5 0.1 0.1": "column 2 (centre x): '0.4_2' is not a number",
    "0.5 0.5 0.1 .\u0662": "column 5 (height): '.\u0662' is not a number",
    "0.1 0.1 0.2 0.2 0.3 0.1 0.1 1.5": "column 9 (y): 1.5 is not between 0 and 1",
}


@pytest.mark.parametrize("row", BAD_ROWS)
def test_a_row_that_is_wrong_is_refused_by_file_and_line(row: str, root: Path) -> None:
    labels(root).write_text(f"0 0.5 0.5 0.1 0.1\n0 {row}\n")
    with pytest.raises(UserError) as fault:
        yolo.read(root)
    assert str(fault.value).startswith(f"{labels(root)}, line 2")
    assert BAD_ROWS[row] in str(fault.value)
    assert fault.value.code == 4
    assert "\n" not in str(fault.value) + fault.value.hint
    assert ("not pixels" in fault.value.hint) == row.startswith("300")


@pytest.mark.parametrize("kind", ["2", "-1", "0.5", "80"])
def test_a_class_that_nobody_named_is_refused(kind: str, root: Path) -> None:
    labels(root).write_text(f"{kind} 0.5 0.5 0.1 0.1\n")
    with pytest.raises(UserError, match=f"line 1: {kind} is not a class; 2 are named, 0 to 1") as fault:
        yolo.read(root)
    assert fault.value.code == 4


def test_labels_without_a_picture_are_refused(root: Path) -> None:
    (root / "labels" / "train" / "classes.txt").write_text("ant\nbee\n")  # labelling tools leave such a file there
    assert len(yolo.read(root)[0].files) == 10
    labels(root, 99).write_text("")
    with pytest.raises(UserError, match=r"labels/train/99\.txt has no picture under .*/images/train/") as fault:
        yolo.read(root)
    assert fault.value.code == 4


def test_two_pictures_of_one_name_are_refused(root: Path) -> None:
    Image.new("RGB", SIDES).save(root / "images" / "train" / "1.jpg")
    with pytest.raises(UserError, match=r"1\.jpg and .*1\.png would have the same labels"):
        yolo.read(root)


def test_labels_that_are_no_text_are_refused(root: Path) -> None:
    labels(root).write_bytes(b"\xff\xfe0")
    with pytest.raises(UserError, match=r"cannot read .*1\.txt"):
        yolo.read(root)


def test_what_other_programs_leave_in_folders_is_not_the_users(root: Path) -> None:
    (root / "images" / "train" / "._1.png").write_bytes(b"")
    (root / "labels" / "train" / ".ipynb_checkpoints").mkdir()
    (root / "labels" / "train" / ".ipynb_checkpoints" / "1-checkpoint.txt").write_text("")
    assert len(yolo.read(root)[0].files) == 10


def test_a_folder_of_something_else_is_refused(root: Path, tmp_path: Path) -> None:
    with pytest.raises(UserError, match="no train pictures of a YOLO folder under") as fault:
        catalogue.load("yolo", tmp_path / "nowhere")
    assert (fault.value.code, "--data" in fault.value.hint) == (4, True)
    (root / "labels" / "val").rename(root / "elsewhere")
    with pytest.raises(UserError, match=r"images/val: its folder of labels, .*, is missing"):
        catalogue.load("yolo", root)
    for path in (root / "images" / "train").iterdir():
        path.unlink()
    (root / "elsewhere").rename(root / "labels" / "val")
    with pytest.raises(UserError, match=r"no pictures under .*/images/train/"):
        catalogue.load("yolo", root)


def test_it_is_described_without_its_pictures(root: Path) -> None:
    info = catalogue.describe("yolo", 64, root)
    assert (info.label, info.classes, info.image_size, info.names) == ("insects", 2, 64, ("ant", "bee"))
    assert catalogue.describe("yolo", None, root).image_size == 320
