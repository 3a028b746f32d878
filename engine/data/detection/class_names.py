"""Read the class names of a YOLO folder: classes.txt with a name a line, or the entry `names` of data.yaml.

If both files have them, they have to agree.

The usual forms of the entry need no YAML library. Other YAML is refused, as a misread name would appear in every table.
"""

from __future__ import annotations

import os
import re
from collections.abc import Mapping
from pathlib import Path, PurePosixPath

from engine.data.contract import class_names
from engine.errors import BAD_DATA, UserError
from engine.system.said import notice, some

YAML = ("data.yaml", "data.yml")
_PLAIN = re.compile(r"[^\s\[\]{},:#&*!|>'\"%@`?-](?:[^\[\]{},:#]|:(?=\S)|(?<=\S)#)*")
_QUOTED = re.compile(r"'([^'\\]*)'|\"([^\"\\]*)\"")


def read(root: Path) -> tuple[str, ...]:
    """Return the class names in the order of their numbers.

    Raises:
        UserError: if no file has them, or only in an unknown form, if two files differ, or as contract.class_names
            (exit 4).
    """
    path, yaml = root / "classes.txt", yaml_of(root)
    text = "" if yaml is None else _text(yaml)
    if re.search(r"^kpt_shape\s*:", text, re.MULTILINE):
        raise UserError(
            f"{yaml}: it describes key points (kpt_shape), whose rows would be read as polygons",
            "write rows of class, centre x, centre y, width and height, and remove kpt_shape", BAD_DATA,
        )  # fmt: skip
    listed, names = _lines(path) if path.is_file() else None, parsed(text)
    if listed and names and listed != names:
        what = f"{path} names the classes {some(listed)}, but {yaml} {some(names)}"
        raise UserError(what, "make them agree, or remove one of them", BAD_DATA)
    write = f"write {path}: one class name a line, class 0 first"
    if listed is None and yaml is None:
        raise UserError(f"no class names under {root}: there is neither {YAML[0]} nor classes.txt", write, BAD_DATA)
    found = listed or names
    if found is None:
        raise UserError(f"{yaml}: its entry `names` is missing or has an unknown form", write, BAD_DATA)
    count = re.search(r"^nc\s*:\s*(\d+)\s*(?:#.*)?$", text, re.MULTILINE)
    if count and int(count[1]) != len(found):
        raise UserError(f"{yaml}: nc is {count[1]}, but there are {len(found)} names", "make them agree", BAD_DATA)
    return class_names(found, path if listed else yaml or path)


def yaml_of(root: Path) -> Path | None:
    """Return a folder's data.yaml, if there is one."""
    return next((root / name for name in YAML if (root / name).is_file()), None)


def say_other_places(root: Path, read_from: Mapping[str, Path]) -> None:
    """Print a notice for an entry of data.yaml that names another folder of pictures than the one that is read.

    Args:
        read_from: the folder of pictures of each entry.
    """
    yaml = yaml_of(root)
    text = _text(yaml) if yaml else ""
    for key, folder in read_from.items():
        entry = re.search(rf"^{key}[ \t]*:[ \t]*(.*?)[ \t]*(?:#.*)?$", text, re.MULTILINE)
        said = entry[1].strip("'\"") if entry else ""
        meant = [part for part in PurePosixPath(said).parts if part not in ("/", ".", "..")]
        places = (Path(os.path.abspath(folder)), folder.resolve())  # it may be a link
        if entry and not (meant and any(meant == [*place.parts[-len(meant) :]] for place in places)):
            notice(f"{yaml}: {key} is {said or 'no folder'}, but the pictures of {folder} are read, below --data")


def _lines(path: Path) -> list[str]:
    """Return the names in classes.txt."""
    found = [line.strip() for line in _text(path).splitlines()]
    while found and not found[-1]:
        found.pop()
    if not found or not all(found):
        raise UserError(f"{path}: it has no names, or an empty line between names", "write one name a line", BAD_DATA)
    return found


def parsed(text: str) -> list[str] | None:
    """Return the names in a data.yaml, a list or a mapping, in brackets or a line each; None for another form."""
    lines = [re.sub(r"(^|\s)#.*", "", line).rstrip() for line in text.splitlines()]
    starts = [number for number, line in enumerate(lines) if re.match(r"names\s*:", line)]
    if len(starts) != 1:
        return None
    first = lines[starts[0]].split(":", 1)[1].strip()
    rest = lines[starts[0] + 1 :]
    if not first:
        return _block(rest)
    whole = " ".join([first, *(line.strip() for line in rest)])
    closing = {"[": "]", "{": "}"}.get(first[0])
    end = whole.find(closing) if closing else -1
    if end < 0:
        return None
    inside = whole[1:end].strip().removesuffix(",")
    entries = re.findall(r"(?:'[^']*'|\"[^\"]*\"|[^,'\"])+", inside)  # a quoted comma is part of a name
    if ",".join(entries) != inside:
        return None
    return _each(entries) if first[0] == "[" else _numbered(entries)


def _block(lines: list[str]) -> list[str] | None:
    """Read lines of `- name` or `0: name` until the block ends."""
    entries = []
    for line in lines:
        if not line.strip():
            continue
        if not line.startswith((" ", "-")):
            break
        entries.append(line.strip())
    if all(entry.startswith("- ") for entry in entries):
        return _each([entry[2:] for entry in entries])
    return _numbered(entries)


def _each(entries: list[str]) -> list[str] | None:
    found = [name for name in map(_scalar, entries) if name is not None]
    return found if len(found) == len(entries) > 0 else None


def _numbered(entries: list[str]) -> list[str] | None:
    """Read entries of `0: name`, with every number from 0 on once."""
    parts = [entry.partition(":") for entry in entries]
    numbers = [int(number) if number.strip().isdecimal() else -1 for number, _, _ in parts]
    if sorted(numbers) != list(range(len(entries))):
        return None
    names = _each([name for _, _, name in parts])
    return names and [names[numbers.index(number)] for number in range(len(names))]


def _scalar(text: str) -> str | None:
    """Return a plain or quoted string; None for anything that means something else in YAML."""
    text = text.strip()
    if quoted := _QUOTED.fullmatch(text):
        return (quoted[1] or quoted[2] or "") or None
    return text if _PLAIN.fullmatch(text) else None


def _text(path: Path) -> str:
    try:
        return path.read_text(encoding="utf-8-sig")
    except (OSError, UnicodeDecodeError) as fault:
        raise UserError(
            f"cannot read {path}: {fault}", "check its permissions, or write it as UTF-8 text", BAD_DATA
        ) from fault
