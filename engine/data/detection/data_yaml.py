"""Read the two entries of a YOLO folder's data.yaml that matter here: the names of the classes, and the folders of pictures.

The usual forms need no YAML library. Other YAML is refused, as a misread name would appear in every table.
"""

from __future__ import annotations

import os
import re
from collections.abc import Mapping
from pathlib import Path, PurePosixPath

from engine.errors import BAD_DATA, UserError
from engine.system.messages import notice

NAMES = ("data.yaml", "data.yml")
_PLAIN = re.compile(r"[^\s\[\]{},:#&*!|>'\"%@`?-](?:[^\[\]{},:#]|:(?=\S)|(?<=\S)#)*")
_QUOTED = re.compile(r"'([^'\\]*)'|\"([^\"\\]*)\"")


def found_in(root: Path) -> Path | None:
    """Return a folder's data.yaml, if there is one."""
    return next((root / name for name in NAMES if (root / name).is_file()), None)


def say_other_places(root: Path, read_from: Mapping[str, Path]) -> None:
    """Print a notice for an entry of data.yaml that names another folder of pictures than the one that is read.

    Args:
        read_from: the folder of pictures of each entry.
    """
    yaml = found_in(root)
    text = text_of(yaml) if yaml else ""
    for key, folder in read_from.items():
        entry = re.search(rf"^{key}[ \t]*:[ \t]*(.*?)[ \t]*(?:#.*)?$", text, re.MULTILINE)
        listed = names_in(text, key)  # several folders, or one in a list
        said = ", ".join(listed) if listed else entry[1].strip("'\"") if entry else ""
        meant = [part for part in PurePosixPath(said).parts if part not in ("/", ".", "..")]
        places = (Path(os.path.abspath(folder)), folder.resolve())  # it may be a link
        if entry and not (meant and any(meant == [*place.parts[-len(meant) :]] for place in places)):
            notice(f"{yaml}: {key} is {said or 'no folder'}, but the pictures of {folder} are read, below --data")


def text_of(path: Path) -> str:
    """Return the text of a file.

    Raises:
        UserError: if it cannot be read, or is not UTF-8 (exit 4).
    """
    try:
        return path.read_text(encoding="utf-8-sig")
    except (OSError, UnicodeDecodeError) as fault:
        raise UserError(
            f"cannot read {path}: {fault}", "check its permissions, or write it as UTF-8 text", BAD_DATA
        ) from fault


def names_in(text: str, key: str = "names") -> list[str] | None:
    """Return the names in an entry, a list or a mapping, in brackets or a line each; None for another form."""
    lines = [re.sub(r"(^|\s)#.*", "", line).rstrip() for line in text.splitlines()]
    starts = [number for number, line in enumerate(lines) if re.match(rf"{key}\s*:", line)]
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
