"""Read a COCO folder: JSON annotations and pictures. coco_entries.py reads entries; boxes.py checks boxes."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np

from engine.data.detection.boxes import SLACK, Rows, checked
from engine.data.detection.coco_entries import called, categories, content_of, pictures, row
from engine.data.detection.listed import PARTS, Listed
from engine.data.detection.objects import Objects
from engine.errors import BAD_DATA, UserError
from engine.system.messages import notice

LAYOUT = (
    "--dataset coco needs DIR/train.json with DIR/train/* and DIR/val.json with DIR/val/*, or COCO's own annotations/, "
    "with DIR from --data"
)


def find(root: Path, part: str) -> tuple[Path, Path]:
    """Find the annotations of a part, and the folder of its pictures.

    Raises:
        UserError: if one is missing (exit 4).
    """
    for name in PARTS[part]:
        own = (
            (root / "annotations" / f"instances_{name}{year}.json", f"{name}{year}") for year in ("2017", "2014", "")
        )
        for path, folder in ((root / f"{name}.json", name), (root / name / "_annotations.coco.json", name), *own):
            if path.is_file():
                for there in (root / folder, root / "images" / folder):
                    if there.is_dir():
                        return path, there
                raise UserError(f"{path}: its folder of pictures, {root / folder}, is missing", LAYOUT, BAD_DATA)
    raise UserError(f"no COCO annotations of {' or '.join(PARTS[part])} pictures under {root}", LAYOUT, BAD_DATA)


def names(root: Path) -> tuple[str, ...]:
    """Return the class names: the categories of the training part, in ascending order of their ids."""
    path, _ = find(root, "train")
    return tuple(categories(path, content_of(path)).values())


def read(root: Path) -> tuple[Listed, Listed, tuple[str, ...]]:
    """Read both parts of a folder, and the names of its classes.

    Raises:
        UserError: for files that are missing, malformed or contradict each other (exit 4).
    """
    (path, folder), (other, others) = find(root, "train"), find(root, "test")
    content = content_of(path)
    known = categories(path, content)
    train = _part(path, folder, content, known)
    del content  # COCO's training part takes gigabytes
    content = content_of(other)
    for number, name in categories(other, content).items():
        if known.get(number, name) != name:
            text = f"{other} calls category {number} {name}, but {path} calls it {known[number]}"
            raise UserError(text, "give the categories the same names in both files", BAD_DATA)
    return train, _part(other, others, content, known), tuple(known.values())


def _part(path: Path, folder: Path, content: dict[str, list[Any]], known: dict[int, str]) -> Listed:
    numbers, files, sides = pictures(path, folder, content["images"])
    classes = {number: place for place, number in enumerate(known)}
    entries = content["annotations"]
    rows = [row(path, place, entry, numbers, classes) for place, entry in enumerate(entries)]
    lacking = {key: sum(key not in entry for entry in entries) for key in ("iscrowd", "area")}
    if any(lacking.values()):
        taken = {"iscrowd": "0", "area": "width by height"}
        listing = " and ".join(
            f"{count:,} lack {key} (assumed: {taken[key]})" for key, count in lacking.items() if count
        )
        notice(f"{path}: of {len(rows):,} annotations, {listing}")
    table = np.array(rows, np.float64).reshape(-1, 8)
    owners = table[:, 0].astype(np.int64)
    side = np.array(sides, np.float64)[owners].reshape(-1, 2)
    boxes = Rows(
        table[:, 2:6], side, np.maximum(1, SLACK * side),
        lambda place: f"{path}, {called(place, entries[place])} of {files[owners[place]].name}", "pixels",
    )  # fmt: skip
    cut, kept = checked(boxes, str(path))
    side, table = side[kept], table[kept]
    areas, largest = table[:, 7], side.prod(1)
    if wide := int((areas > largest).sum()):
        notice(
            f"{path}: annotations with a larger area than their picture: {wide:,} of {len(rows):,}; taken: width by height"
        )
    areas = np.where(areas <= largest, areas, (cut[:, 2:] - cut[:, :2]).prod(1)) / largest  # NaN: it is not given
    objects = Objects.gathered(len(files), table[:, 0], cut / np.tile(side, 2), table[:, 1], table[:, 6], areas)
    return Listed(files, sides, objects)
