"""--skip_bad: leave unreadable pictures out of a folder. Each picture is decoded once to find them."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

from engine.data import image_folder
from engine.data.image_folder import Folder
from engine.data.many_files import each
from engine.data.pictures import decode
from engine.errors import BAD_DATA, UserError
from engine.system.messages import notice, some


def _fault(path: Path) -> str:
    """Return the error of a file, empty if it can be read."""
    try:
        decode(path)
    except UserError as fault:
        return str(fault)
    return ""


def listed(root: Path, skip_bad: bool, workers: int) -> Folder:
    """List a folder of pictures, without the unreadable ones if `skip_bad`.

    Raises:
        UserError: as image_folder.listed and without_bad.
    """
    folder = image_folder.listed(root)
    return without_bad(folder, workers) if skip_bad else folder


def without_bad(folder: Folder, workers: int) -> Folder:
    """Return the folder without its unreadable pictures, which a notice counts and names.

    Args:
        workers: number of reading processes.

    Raises:
        UserError: if a class loses all its pictures of a part (exit 4).
    """
    every = [*folder.train, *folder.test]
    faults = list(each(_fault, every, workers, folder.label, "looking through"))
    bad = [fault for fault in faults if fault]
    if not bad:
        return folder
    notice(f"--skip_bad: {len(bad):,} of {len(every):,} pictures left out: {some(bad)}")
    count = len(folder.train)
    train = [file for file, fault in zip(folder.train, faults[:count], strict=True) if not fault]
    test = [file for file, fault in zip(folder.test, faults[count:], strict=True) if not fault]
    for part, files in (("train", train), (folder.tested, test)):
        for number in image_folder.bare(files, folder.names):
            text = f"no picture of {folder.names[number]} in {part}/ can be read"
            raise UserError(text, f"replace them, or remove this class from train/ and {folder.tested}/", BAD_DATA)
    return replace(folder, train=train, test=test)
