"""COCO folders: boxes, classes and areas by hand, common layouts, and an error with a name for every wrong entry."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from PIL import Image

from engine.data import catalogue, splits
from engine.data.detection import coco
from engine.errors import BAD_DATA, USAGE, UserError
from tests.tools.boxed import SIDES, coco_content, coco_folder, pictures, scene, seen

CPU = torch.device("cpu")


def changed(root: Path, change: Callable[[dict[str, Any]], Any], part: str = "train") -> Path:
    """Change a part's annotations in place and return the folder."""
    content = coco_content(part)
    change(content)
    (root / f"{part}.json").write_text(json.dumps(content))
    return root


@pytest.fixture
def root(tmp_path: Path) -> Path:
    return coco_folder(tmp_path / "insects")


def test_what_is_annotated_is_what_networks_are_shown(root: Path) -> None:
    data = catalogue.load("coco", root, CPU, 96, workers=0)
    info = data.info
    assert (info.name, info.label, info.classes, info.names) == ("coco", "insects", 2, ("ant", "bee"))
    assert (info.image_size, info.flip, info.task, info.pad) == (96, True, "detection", 0)
    assert (len(data.train), len(data.test), data.part) == (10, 4, "test")
    for part in (data.train, data.test):
        images, targets = next(part.batches(20))
        pixels = ((images.permute(0, 2, 3, 1) * torch.tensor(info.std) + torch.tensor(info.mean)) * 255).round().byte()
        for number, (picture, target) in enumerate(zip(pixels, targets, strict=True)):
            boxes, labels = scene(number)
            scale = [96 / SIDES[0], 96 / SIDES[1]] * 2
            assert target["boxes"].tolist() == [
                pytest.approx([v * f for v, f in zip(b, scale, strict=True)], abs=1e-4) for b in boxes
            ]
            assert target["labels"].tolist() == labels
            sizes = (target["boxes"][:, 2:] - target["boxes"][:, :2]).prod(1)
            assert torch.allclose(target["area"], sizes / 2)  # the annotation's area, not width times height
            assert not target["crowd"].any()
            for box, label in zip(target["boxes"].tolist(), labels, strict=True):
                assert seen(picture, label) == pytest.approx(box, abs=1)


def test_mean_and_std_are_those_of_the_training_pictures(root: Path) -> None:
    data = catalogue.load("coco", root, CPU, 32, workers=0)
    images, _ = next(data.train.batches(10))
    assert images.double().mean((0, 2, 3)).abs().max() < 1e-3
    assert (images.double().std((0, 2, 3), correction=0) - 1).abs().max() < 1e-2


def test_some_training_pictures_are_held_out(root: Path) -> None:
    held = catalogue.load("coco", root, CPU, 32, val=3, workers=0)
    assert (len(held.train), len(held.test), held.part) == (7, 3, "val")
    whole = next(catalogue.load("coco", root, CPU, 32, workers=0).train.batches(10))[0]
    parts = [next(part.batches(10))[0] for part in (held.train, held.test)]
    matches = [[i for i, one in enumerate(whole) if torch.equal(one, picture)] for part in parts for picture in part]
    assert {number for match in matches for number in match} == set(range(10))


def test_ids_with_holes_are_numbered_without_them(root: Path) -> None:
    """COCO's stop sign has id 13 and is the twelfth class: label 11."""

    def change(content: dict[str, Any]) -> None:
        content["categories"] = [{"id": n, "name": f"n{n}"} for n in (90, *range(1, 12), 13)]
        for entry, number in zip(content["annotations"], (13, 1, 90), strict=False):
            entry["category_id"] = number
        content["annotations"] = content["annotations"][:3]

    changed(root, change)
    changed(
        root,
        lambda content: (
            content.update(categories=[], annotations=[]) or content["categories"].append({"id": 13, "name": "n13"})
        ),
        "val",
    )
    train, _, names = coco.read(root)
    assert train.objects.labels.tolist() == [11, 0, 12]
    assert names[11] == "n13"
    assert len(names) == 13


def test_crowds_are_marked_and_missing_fields_are_said(root: Path, capsys: pytest.CaptureFixture[str]) -> None:
    def change(content: dict[str, Any]) -> None:
        content["annotations"][0]["iscrowd"] = 1
        del content["annotations"][1]["iscrowd"], content["annotations"][1]["area"], content["annotations"][2]["area"]

    train, _, _ = coco.read(changed(root, change))
    said = capsys.readouterr().err.splitlines()
    count = len(coco_content("train")["annotations"])
    assert said == [
        f"notice: {root}/train.json: of {count} annotations, 1 lack iscrowd (assumed: 0) and 2 lack area (assumed: width by height)"
    ]
    assert train.objects.crowd.tolist() == [True, *[False] * (count - 1)]
    *_, width, height = coco_content("train")["annotations"][1]["bbox"]
    assert train.objects.area[1] == pytest.approx(width * height / SIDES[0] / SIDES[1])


def test_an_area_that_no_object_can_have_becomes_that_of_its_box(
    root: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    def change(content: dict[str, Any]) -> None:
        for entry, area in zip(
            content["annotations"], (9e8, SIDES[0] * SIDES[1] + 1, SIDES[0] * SIDES[1], 0), strict=False
        ):
            entry["area"] = area

    train, _, _ = coco.read(changed(root, change))
    count = len(coco_content("train")["annotations"])
    said = f"notice: {root}/train.json: annotations with a larger area than their picture: 2 of {count}; taken: width by height\n"
    assert capsys.readouterr().err == said
    sizes = [one["bbox"][2] * one["bbox"][3] / SIDES[0] / SIDES[1] for one in coco_content("train")["annotations"]]
    assert train.objects.area[:4].tolist() == pytest.approx([*sizes[:2], 1, 0])


def test_coordinates_survive_the_way_to_networks_and_back(root: Path) -> None:
    for size in (32, 160, 321):
        found = coco.read(root)[0].at(size)[1].boxes / size * torch.tensor(SIDES * 2).numpy()
        wanted = [box for number in range(10) for box in scene(number)[0]]
        assert found == pytest.approx(torch.tensor(wanted).numpy(), abs=1e-4)


def laid(root: Path, names: dict[str, tuple[str, str]]) -> Path:
    for part, (path, folder) in names.items():
        pictures(root / folder, part)
        (root / path).parent.mkdir(exist_ok=True)
        (root / path).write_text(json.dumps(coco_content(part)))
    return root


@pytest.mark.parametrize(
    "names",
    [
        {"train": ("annotations/instances_train2017.json", "train2017"), "val": ("annotations/instances_val2017.json", "val2017")},
        {"train": ("annotations/instances_train.json", "images/train"), "val": ("annotations/instances_val.json", "images/val")},
        {"train": ("train/_annotations.coco.json", "train"), "val": ("valid/_annotations.coco.json", "valid")},
        {"train": ("train.json", "train"), "val": ("test.json", "test")},
    ],
    ids=["coco", "images", "roboflow", "test"],
)  # fmt: skip
def test_the_layouts_that_people_have_are_found(names: dict[str, tuple[str, str]], tmp_path: Path) -> None:
    train, test, _ = coco.read(laid(tmp_path, names))
    assert (len(train.files), len(test.files)) == (10, 4)
    assert test.files[0] == tmp_path / names["val"][1] / "0.png"


def test_val_is_judged_on_where_test_is_there_too(root: Path) -> None:
    (root / "test.json").write_text("{}")
    assert coco.find(root, "test") == (root / "val.json", root / "val")


def first(**fields: Any) -> Callable[[dict[str, Any]], Any]:
    return lambda content: content["annotations"][0].update(fields)


BAD = {
    "box of no width": (first(bbox=[5, 5, 0, 4]), r"train\.json, annotation 1 of 1\.png: the box .* has no width or no height"),
    "box turned round": (first(bbox=[9, 5, -4, 4]), r"train\.json, annotation 1 of 1\.png: the box .* has no width or no height"),
    "box outside": (first(bbox=[40, 5, 10, 4]), r"annotation 1 of 1\.png: the box from 40, 5 to 50, 9 lies outside its picture, 48 x 40 pixels"),
    "three numbers": (first(bbox=[5, 5, 4]), "annotation 1 has no bbox of four numbers"),
    "words": (first(bbox=[5, 5, 4, "4"]), "annotation 1 has no bbox of four numbers"),
    "not finite": (first(bbox=[5, 5, 4, float("nan")]), "annotation 1 has no bbox of four numbers"),
    "unknown category": (first(category_id=4), "annotation 1 has category 4, which is not among"),
    "odd category": (first(category_id=[3]), r"annotation 1 has category \[3\], which is not among"),
    "unknown image": (first(image_id=5), "annotation 1 is for image 5, which the file does not list"),
    "odd crowd": (first(iscrowd=2), "annotation 1 has iscrowd 2"),
    "odd area": (first(area=-1), "annotation 1 has iscrowd 0 and area -1"),
    "no area": (first(area=float("nan")), "annotation 1 has iscrowd 0 and area nan, not 0 or 1 and a number of at least 0"),
    "no annotation": (lambda content: content["annotations"].insert(0, 7), "annotation no. 1 has no bbox"),
    "no lists": (lambda content: content.pop("images"), "it has no lists of images, annotations and categories"),
    "no images": (lambda content: content.update(images=[], annotations=[]), "it lists no images"),
    "no categories": (lambda content: content.update(categories=[]), "it has no categories"),
    "category twice": (lambda content: content["categories"].append({"id": 3, "name": "fly"}), "two categories have the id 3: ant and fly"),
    "category without a name": (lambda content: content["categories"].append({"id": 4}), "a category has no id or no name"),
    "image twice": (lambda content: content["images"].append(content["images"][0]), "two images have the id 100: 0.png and 0.png"),
    "image without a size": (lambda content: content["images"][1].pop("width"), r"image 1\.png has no width and height in pixels"),
    "image without a name": (lambda content: content["images"][1].pop("file_name"), "an image has no id or no file_name"),
    "long name": (lambda content: content["images"][1].update(file_name="z" * 9000), r"train\.json lists z{80}, but .* is missing"),
    "half a character": (lambda content: content["images"][1].update(file_name="\ud800"), r"train\.json lists .*, but .* is missing"),
    "name with a zero byte": (lambda content: content["images"][1].update(file_name="\0"), r"train\.json lists .*, but .* is missing"),
    "huge width": (lambda content: content["images"][1].update(width=10**400), r"image 1\.png has no width and height in pixels, from 1 to 999,999,999"),
    "id that is no number": (lambda content: content["images"][1].update(id=True), "an image has no id or no file_name"),
    "missing picture": (lambda content: content["images"][1].update(file_name="z.png"), r"train\.json lists z\.png, but .*/train/z\.png is missing"),
}  # fmt: skip


@pytest.mark.parametrize("name", BAD)
def test_what_is_wrong_is_refused_by_name(name: str, root: Path) -> None:
    change, text = BAD[name]
    with pytest.raises(UserError, match=text) as fault:
        coco.read(changed(root, change))
    assert fault.value.code == 4
    assert "train.json" in str(fault.value)
    assert "\n" not in str(fault.value) + fault.value.hint


def test_a_file_that_is_cut_short_is_refused(root: Path) -> None:
    path = root / "train.json"
    content = path.read_bytes()
    for damaged in (content[:-20], b"", b"\xff\xfe", b"[" * 100_000, b"[]"):
        path.write_bytes(damaged)
        with pytest.raises(UserError, match=r"train\.json") as fault:
            coco.read(root)
        assert fault.value.code == 4
    path.write_bytes(content[:-20])
    with pytest.raises(UserError, match="truncated"):
        coco.read(root)


def test_parts_that_contradict_each_other_are_refused(root: Path) -> None:
    changed(root, lambda content: content["categories"][0].update(name="wasp"), "val")
    with pytest.raises(UserError, match=r"val\.json calls category 7 wasp, but .*train\.json calls it bee"):
        coco.read(root)
    changed(root, first(category_id=9), "val")
    with pytest.raises(UserError, match=r"val\.json: annotation 1 has category 9"):
        coco.read(root)


def test_a_folder_of_something_else_is_refused(root: Path, tmp_path: Path) -> None:
    with pytest.raises(UserError, match="no COCO annotations of train pictures under") as fault:
        catalogue.load("coco", tmp_path / "nowhere")
    assert fault.value.code == 4
    assert "--data" in fault.value.hint
    (root / "val").rename(root / "elsewhere")
    with pytest.raises(UserError, match=r"val\.json: its folder of pictures, .*/val, is missing"):
        catalogue.load("coco", root)


def test_training_on_nothing_is_refused(root: Path) -> None:
    changed(root, lambda content: content.update(annotations=[]))
    with pytest.raises(UserError, match="no training picture has an object"):
        catalogue.load("coco", root, workers=0)


@pytest.mark.parametrize("part", ["training", "test"])
def test_a_part_with_crowds_alone_is_refused(part: str, root: Path) -> None:
    def change(content: dict[str, Any]) -> None:
        for entry in content["annotations"]:
            entry["iscrowd"] = 1

    changed(root, change, "val" if part == "test" else "train")
    with pytest.raises(UserError, match=f"{root}: no {part} picture has an object outside of crowds") as fault:
        catalogue.load("coco", root, workers=0)
    assert fault.value.code == BAD_DATA


def test_a_held_out_part_without_objects_is_refused_before_pictures_are_read(root: Path) -> None:
    held = splits.held_out(10, 2)[1].tolist()

    def change(content: dict[str, Any]) -> None:
        content["annotations"] = [one for one in content["annotations"] if one["image_id"] - 100 not in held]

    changed(root, change)
    (root / "train/0.png").write_text("no picture")
    with pytest.raises(UserError, match=f"^--val 2: {root}: no held-out picture has an object") as fault:
        catalogue.load("coco", root, CPU, 32, val=2, workers=0)
    assert fault.value.code == USAGE


@pytest.mark.parametrize("workers", [0, 2])
def test_a_picture_that_its_camera_turns_is_shown_upright(workers: int, root: Path) -> None:
    """The file has 100 x 40 pixels, shown as 40 x 100: boxes of the shown picture are right, boxes of the file's size are refused."""
    upright = Image.new("RGB", (40, 100))
    upright.paste((250, 0, 0), (5, 60, 25, 90))
    exif = Image.Exif()
    exif[0x0112] = 6  # rotate by 90 degrees clockwise
    upright.transpose(Image.Transpose.ROTATE_90).save(root / "train" / "1.png", exif=exif)

    def change(content: dict[str, Any], sides: tuple[int, int] = (40, 100)) -> None:
        content["images"] = [content["images"][1] | {"width": sides[0], "height": sides[1]}]
        content["annotations"] = [content["annotations"][0] | {"bbox": [5, 60, 20, 30], "category_id": 3}]

    data = catalogue.load("coco", changed(root, change), CPU, 80, workers=workers)
    data.set_normalisation((0.0,) * 3, (1.0,) * 3)
    images, targets = next(data.train.batches(1))
    assert targets[0]["boxes"].tolist() == [[10, 48, 50, 72]]
    assert seen((images[0].permute(1, 2, 0) * 255).round().byte(), 0) == pytest.approx([10, 48, 50, 72], abs=1)
    images, targets = next(data.train.training_batches(1, 1, 0))
    assert seen((images[0].permute(1, 2, 0) * 255).round().byte(), 0) == pytest.approx(
        targets[0]["boxes"][0].tolist(), abs=2
    )
    changed(root, lambda content: change(content, (100, 40)) or content["annotations"][0].update(bbox=[5, 5, 20, 30]))
    with pytest.raises(UserError, match=r"1\.png has 40 x 100 pixels, its annotation is for 100 x 40") as fault:
        catalogue.load("coco", root, CPU, 80, workers=workers)
    assert (fault.value.code, "EXIF" in fault.value.hint) == (4, True)
    del fault
