"""Read a YOLO folder: images/ and labels/, with a text file for each picture and a row for each object.

yolo_rows.py reads the rows; boxes.py checks the boxes.
"""

from __future__ import annotations

from pathlib import Path

import numpy as np

from engine.data.detection import class_names
from engine.data.detection.boxes import SLACK, Rows, checked
from engine.data.detection.listed import Listed
from engine.data.detection.objects import Objects
from engine.data.detection.yolo_rows import Found, read as read_rows
from engine.data.image_folder import PICTURE_SUFFIXES
from engine.errors import BAD_DATA, UserError
from engine.system.said import notice

PARTS = {"train": ("train",), "test": ("val", "valid", "test")}
"""The folder names of each part; the first that exists is read."""
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
    train, test = (_part(images, labels, len(names)) for images, labels in folders)
    return train, test, names


def _part(images: Path, labels: Path, classes: int) -> Listed:
    files = _files(images, PICTURE_SUFFIXES)
    if not files:
        raise UserError(f"no pictures under {images}/", LAYOUT, BAD_DATA)
    wanted = _label_files(images, labels, files)
    there = set(_files(labels, {".txt"}))
    odd = sorted(path for path in there - set(wanted) if path.name != "classes.txt")  # labelling tools leave it there
    if odd:
        raise UserError(f"{odd[0]} has no picture under {images}/", "add the picture, or remove the labels", BAD_DATA)
    found = Found()
    for number, path in enumerate(wanted):
        if path in there:
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


def _files(folder: Path, suffixes: set[str]) -> list[Path]:
    """List the files under a folder and its subfolders, without names that begin with a dot (other programs' files)."""
    return sorted(
        path
        for path in folder.rglob("*")
        if path.suffix.lower() in suffixes and not any(part.startswith(".") for part in path.relative_to(folder).parts)
    )


def _label_files(images: Path, labels: Path, files: list[Path]) -> list[Path]:
    """Return the label file of each picture, whether it exists or not."""
    found: dict[Path, Path] = {}
    for path in files:
        wanted = labels / path.relative_to(images).with_suffix(".txt")
        if wanted in found:
            text = f"{found[wanted]} and {path} would have the same labels, {wanted}"
            raise UserError(text, "rename one of them", BAD_DATA)
        found[wanted] = path
    return list(found)
