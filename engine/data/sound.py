"""--skip_bad: a folder of pictures without those that cannot be read. Each picture is decoded once to find out."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

from engine.data import image_folder
from engine.data.image_folder import Folder
from engine.data.many_files import each
from engine.data.pictures import decode
from engine.errors import BAD_DATA, UserError
from engine.system.said import notice, some


def _fault(path: Path) -> str:
    """What is wrong with a file, empty if nothing."""
    try:
        decode(path)
    except UserError as fault:
        return str(fault)
    return ""


def listed(root: Path, skip_bad: bool, workers: int) -> Folder:
    """A folder of pictures; without the bad ones, if these are to be skipped.

    Raises:
        UserError: as image_folder.listed and without_bad.
    """
    folder = image_folder.listed(root)
    return without_bad(folder, workers) if skip_bad else folder


def without_bad(folder: Folder, workers: int) -> Folder:
    """The folder without pictures that cannot be read, which a notice counts and names.

    Args:
        workers: processes that read.

    Raises:
        UserError: exit 4 if a class loses all its pictures of a part.
    """
    every = [*folder.train, *folder.test]
    faults = list(each(_fault, every, workers, folder.label, "looking through"))
    bad = [fault for fault in faults if fault]
    if not bad:
        return folder
    notice(f"--skip_bad: {len(bad):,} of {len(every):,} pictures are left out: {some(bad)}")
    count = len(folder.train)
    train = [file for file, fault in zip(folder.train, faults[:count], strict=True) if not fault]
    test = [file for file, fault in zip(folder.test, faults[count:], strict=True) if not fault]
    for part, files in (("train", train), (folder.tested, test)):
        for number in image_folder.bare(files, folder.names):
            text = f"no picture of {folder.names[number]} in {part}/ can be read"
            raise UserError(text, f"replace them, or take their class out of train/ and {folder.tested}/", BAD_DATA)
    return replace(folder, train=train, test=test)
