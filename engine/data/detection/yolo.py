"""Read a YOLO folder: images/ and labels/, with a text file for each picture and a row for each object.

yolo_rows.py reads the rows; boxes.py checks the boxes.
"""

from __future__ import annotations

import os
from pathlib import Path

import numpy as np

from engine.data.detection import class_names, data_yaml
from engine.data.detection.boxes import SLACK, Rows, checked
from engine.data.detection.listed import PARTS, Listed
from engine.data.detection.objects import Objects
from engine.data.detection.yolo_rows import Found, read as read_rows
from engine.data.listing import PICTURE_SUFFIXES, files_under, say_left_out
from engine.errors import BAD_DATA, UserError
from engine.system.messages import notice

LAYOUT = (
    "--dataset yolo needs DIR/images/train/* with DIR/labels/train/*.txt and the same for val, "
    "or DIR/train/images/* with DIR/train/labels/*.txt; DIR is from --data"
)


def find(root: Path, part: str) -> tuple[Path, Path]:
    """Find the folders of a part's pictures and labels.

    Raises:
        UserError: if one is missing (exit 4).
    """
    for name in PARTS[part]:
        for images, labels in (
            (root / "images" / name, root / "labels" / name),
            (root / name / "images", root / name / "labels"),
        ):
            if images.is_dir():
                if labels.is_dir():
                    return images, labels
                raise UserError(f"{images}: its folder of labels, {labels}, is missing", LAYOUT, BAD_DATA)
    raise UserError(f"no {' or '.join(PARTS[part])} pictures of a YOLO folder under {root}", LAYOUT, BAD_DATA)


def read(root: Path) -> tuple[Listed, Listed, tuple[str, ...]]:
    """Read both parts of a folder, and the names of its classes.

    Raises:
        UserError: for files that are missing, malformed or contradict each other (exit 4).
    """
    folders = [find(root, part) for part in ("train", "test")]
    names = class_names.read(root)
    data_yaml.say_other_places(root, {"train": folders[0][0], "val": folders[1][0]})
    train, test = (_part(images, labels, len(names)) for images, labels in folders)
    return train, test, names


def _part(images: Path, labels: Path, classes: int) -> Listed:
    files, others = files_under(images, PICTURE_SUFFIXES)
    if not files:
        raise UserError(f"no pictures under {images}/", LAYOUT, BAD_DATA)
    say_left_out(images, others, PICTURE_SUFFIXES)
    wanted = _label_files(images, labels, files)
    found = Found()
    for number, path in enumerate(wanted):
        if os.path.lexists(path):
            read_rows(path, number, classes, found)
        else:
            found.without += 1
    if found.without:
        notice(f"{labels}: {found.without:,} of {len(files):,} pictures have no labels: treated as empty")
    if found.twice:
        notice(f"{labels}: {found.twice:,} rows repeat another row of their file and were left out")
    rows = Rows(
        np.array(found.boxes, np.float64).reshape(-1, 4), np.ones((len(found.boxes), 2)), np.full((len(found.boxes), 2), SLACK),
        lambda row: f"{wanted[found.owners[row]]}, line {found.lines[row]}", "in fractions of its sides",
    )  # fmt: skip
    boxes, kept = checked(rows, str(labels))
    owners, numbers = (np.array(values, np.int64)[kept] for values in (found.owners, found.classes))
    return Listed(files, None, Objects.gathered(len(files), owners, boxes, numbers))


def _label_files(images: Path, labels: Path, files: list[Path]) -> list[Path]:
    """Return the label file of each picture, whether it exists or not. Suffixes may be in capitals."""
    there, others = files_under(labels, {".txt"})
    say_left_out(labels, others, {".txt"})
    known: dict[Path, Path] = {}
    for path in there:
        if (other := known.setdefault(path.with_suffix(".txt"), path)) != path:
            raise UserError(f"{other} and {path} are labels of the same picture", "remove one of them", BAD_DATA)
    found: dict[Path, Path] = {}
    for path in files:
        wanted = labels / path.relative_to(images).with_suffix(".txt")
        if wanted in found:
            text = f"{found[wanted]} and {path} would have the same labels, {wanted}"
            raise UserError(text, "rename one of them", BAD_DATA)
        found[wanted] = path
    odd = [path for place, path in known.items() if place not in found and path.name != "classes.txt"]
    if odd:  # labelling tools write classes.txt there
        raise UserError(f"{odd[0]} has no picture under {images}/", "add the picture, or remove the labels", BAD_DATA)
    return [known.get(place, place) for place in found]
