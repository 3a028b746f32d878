"""Read the entries of a COCO annotation file: categories, pictures and annotations. Errors name the wrong entry."""

from __future__ import annotations

import json
import math
from pathlib import Path
from typing import Any

from engine.data.names import class_names
from engine.errors import BAD_DATA, UserError

_MEND = "correct the file"


def content_of(path: Path) -> dict[str, list[Any]]:
    """Read a file's lists of "images", "annotations" and "categories".

    Raises:
        UserError: if it cannot be read or lacks these lists (exit 4, as all errors of this module).
    """
    try:
        content = json.loads(path.read_bytes())
    except OSError as fault:
        raise UserError(f"cannot read {path}: {fault.strerror}", "check the path", BAD_DATA) from fault
    except (ValueError, RecursionError) as fault:
        text = f"cannot read {path}: it is truncated or not JSON ({fault})"
        raise UserError(text, "download or write it again", BAD_DATA) from fault
    if not isinstance(content, dict) or not all(
        isinstance(content.get(key), list) for key in ("images", "annotations", "categories")
    ):
        raise _wrong(path, "it has no lists of images, annotations and categories")
    return content


def categories(path: Path, content: dict[str, list[Any]]) -> dict[int, str]:
    """Return the categories' names by id, ascending. Ids may have gaps; classes are numbered from 0 without gaps."""
    found: dict[int, str] = {}
    for entry in content["categories"]:
        number, name = (entry.get("id"), entry.get("name")) if isinstance(entry, dict) else (None, None)
        if type(number) is not int or not isinstance(name, str):
            raise _wrong(path, f"a category has no id or no name: {str(entry)[:80]}")
        if number in found:
            raise _wrong(path, f"two categories have the id {number}: {found[number]} and {name}")
        found[number] = name
    if not found:
        raise _wrong(path, "it has no categories")
    found = dict(sorted(found.items()))
    class_names([*found.values()], path)
    return found


Row = tuple[int, int, float, float, float, float, bool, float]


def row(path: Path, place: int, entry: Any, numbers: dict[Any, int], classes: dict[int, int]) -> Row:
    """Return an annotation's picture number, class, x1, y1, x2, y2, whether it is a crowd, and its area, or NaN."""
    name = called(place, entry)
    box = entry.get("bbox") if isinstance(entry, dict) else None
    if not isinstance(box, list) or len(box) != 4 or not all(map(_is_number, box)):
        raise _wrong(path, f"{name} has no bbox of four numbers")
    number, kind = entry.get("image_id"), entry.get("category_id")
    if not _is_id(number) or number not in numbers:
        raise _wrong(path, f"{name} is for image {str(number)[:80]}, which the file does not list")
    if not _is_id(kind) or kind not in classes:
        raise _wrong(path, f"{name} has category {str(kind)[:80]}, which is not among the training part's categories")
    left, top, width, height = box
    crowd, area = entry.get("iscrowd", 0), entry.get("area", 0)
    if crowd not in (0, 1) or not _is_number(area) or area < 0:
        text = f"{name} has iscrowd {str(crowd)[:20]} and area {str(area)[:20]}, not 0 or 1 and a number of at least 0"
        raise _wrong(path, text)
    area = area if "area" in entry else math.nan
    return numbers[number], classes[kind], left, top, left + width, top + height, bool(crowd), area


def called(place: int, entry: Any) -> str:
    """Return an annotation's name for errors: its id, else its place in the list."""
    number = entry.get("id") if isinstance(entry, dict) else None
    return f"annotation {number}" if _is_id(number) else f"annotation no. {place + 1}"


def pictures(path: Path, folder: Path, entries: list[Any]) -> tuple[dict[Any, int], list[Path], list[tuple[int, int]]]:
    """Return the pictures' numbers by id, their files, and their widths and heights."""
    numbers: dict[Any, int] = {}
    files: list[Path] = []
    sides: list[tuple[int, int]] = []
    for entry in entries:
        fields = [entry.get(key) if isinstance(entry, dict) else None for key in ("id", "file_name", "width", "height")]
        number, name, width, height = fields
        if not _is_id(number) or not isinstance(name, str) or not name:
            raise _wrong(path, f"an image has no id or no file_name: {str(entry)[:80]}")
        if not (type(width) is int and type(height) is int and 0 < width < FARTHEST and 0 < height < FARTHEST):
            raise _wrong(path, f"image {name[:80]} has no width and height in pixels, from 1 to {FARTHEST - 1:,.0f}")
        if number in numbers:
            raise _wrong(path, f"two images have the id {number}: {files[numbers[number]].name} and {name[:80]}")
        found = next((file for file in (folder / name, folder.parent / name) if _is_file(file)), None)
        if found is None:
            text = f"{path} lists {name[:80]}, but {folder / name[:80]} is missing"
            raise UserError(text, "add the picture, or remove its entry", BAD_DATA)
        numbers[number] = len(files)
        files.append(found)
        sides.append((width, height))
    if not files:
        raise _wrong(path, "it lists no images")
    return numbers, files, sides


def _is_file(path: Path) -> bool:
    try:
        return path.is_file()
    except (OSError, ValueError):  # a name that is too long, or holds half a character
        return False


def _is_id(value: Any) -> bool:
    return type(value) in (int, str)


FARTHEST = 1e9
"""Limit for coordinates, in pixels, so that their sums and products are finite."""


def _is_number(value: Any) -> bool:
    return type(value) in (int, float) and abs(value) < FARTHEST


def _wrong(path: Path, what: str) -> UserError:
    return UserError(f"{path}: {what}", _MEND, BAD_DATA)
