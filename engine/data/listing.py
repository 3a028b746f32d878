"""List the files of a data set's folder, and say which files are left out. pictures.py reads a picture's file."""

from __future__ import annotations

import os
from collections.abc import Collection, Sequence
from pathlib import Path
from typing import NoReturn

from engine.errors import BAD_DATA, UserError
from engine.system.messages import notice

PICTURE_SUFFIXES = {".bmp", ".gif", ".jfif", ".jpe", ".jpeg", ".jpg", ".pbm", ".pgm", ".png", ".pnm", ".ppm", ".tif", ".tiff", ".webp"}  # fmt: skip


def files_under(folder: Path, suffixes: Collection[str]) -> tuple[list[Path], list[Path]]:
    """Return the files with some suffixes under a folder and its subfolders, and the others, both sorted.

    Names that begin with a dot are in neither list, as other programs make them: .ipynb_checkpoints, ._1.png. Links to
    folders below this one are among the others, as they may lead round in circles.

    Raises:
        UserError: if a folder cannot be read (exit 4).
    """
    taken, others = list[Path](), list[Path]()
    for here, folders, names in os.walk(folder, onerror=_cannot_read):
        folders[:] = [name for name in folders if not name.startswith(".")]
        others += [Path(here, name) for name in folders if os.path.islink(os.path.join(here, name))]
        for name in names:
            if not name.startswith("."):
                (taken if os.path.splitext(name)[1].lower() in suffixes else others).append(Path(here, name))
    return sorted(taken), sorted(others)


def entries(folder: Path) -> list[Path]:
    """Return what lies in a folder, sorted, without names that begin with a dot.

    Raises:
        UserError: if it cannot be read (exit 4).
    """
    try:
        return sorted(path for path in folder.iterdir() if not path.name.startswith("."))
    except OSError as fault:
        _cannot_read(fault)


def say_left_out(folder: Path, others: Sequence[Path], suffixes: Collection[str]) -> None:
    """Print a notice that counts the files left out of a folder, and names the first; nothing if there are none."""
    if others:
        count = "1 file is" if len(others) == 1 else f"{len(others):,} files are"
        first = "" if len(others) == 1 else "the first is "
        notice(
            f"{folder}: {count} left out, {first}{others[0].relative_to(folder)}; suffixes that are read: {' '.join(sorted(suffixes))}"
        )


def check_regular(path: Path) -> None:
    """Refuse a pipe or a device: reading it could wait for ever. Missing files and folders are left to the reader.

    Raises:
        UserError: naming it (exit 4).
    """
    if not path.is_file() and path.exists() and not path.is_dir():
        raise UserError(f"cannot read {path}: it is not a regular file", "remove or replace it", BAD_DATA)


def _cannot_read(fault: OSError) -> NoReturn:
    raise UserError(f"cannot read {fault.filename}: {fault.strerror}", "check its permissions", BAD_DATA) from fault
