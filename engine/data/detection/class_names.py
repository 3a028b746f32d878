"""Read the class names of a YOLO folder: classes.txt with a name a line, or the entry `names` of data.yaml.

If both files have them, they have to agree.
"""

from __future__ import annotations

import re
from pathlib import Path

from engine.data.detection import data_yaml
from engine.data.names import class_names
from engine.errors import BAD_DATA, UserError
from engine.system.messages import some


def read(root: Path) -> tuple[str, ...]:
    """Return the class names in the order of their numbers.

    Raises:
        UserError: if no file has them, or only in an unknown form, if two files differ, or as names.class_names
            (exit 4).
    """
    path, yaml = root / "classes.txt", data_yaml.found_in(root)
    text = "" if yaml is None else data_yaml.text_of(yaml)
    if re.search(r"^kpt_shape\s*:", text, re.MULTILINE):
        raise UserError(
            f"{yaml}: it describes key points (kpt_shape), whose rows would be read as polygons",
            "write rows of class, centre x, centre y, width and height, and remove kpt_shape", BAD_DATA,
        )  # fmt: skip
    listed, names = _lines(path) if path.is_file() else None, data_yaml.names_in(text)
    if listed and names and listed != names:
        what = f"{path} names the classes {some(listed)}, but {yaml} {some(names)}"
        raise UserError(what, "make them agree, or remove one of them", BAD_DATA)
    write = f"write {path}: one class name a line, class 0 first"
    if listed is None and yaml is None:
        raise UserError(
            f"no class names under {root}: there is neither {data_yaml.NAMES[0]} nor classes.txt", write, BAD_DATA
        )
    found = listed or names
    if found is None:
        raise UserError(f"{yaml}: its entry `names` is missing or has an unknown form", write, BAD_DATA)
    count = re.search(r"^nc\s*:\s*(\d+)\s*(?:#.*)?$", text, re.MULTILINE)
    if count and int(count[1]) != len(found):
        raise UserError(f"{yaml}: nc is {count[1]}, but there are {len(found)} names", "make them agree", BAD_DATA)
    return class_names(found, path if listed else yaml or path)


def _lines(path: Path) -> list[str]:
    """Return the names in classes.txt."""
    found = [line.strip() for line in data_yaml.text_of(path).splitlines()]
    while found and not found[-1]:
        found.pop()
    if not found or not all(found):
        raise UserError(f"{path}: it has no names, or an empty line between names", "write one name a line", BAD_DATA)
    return found
