"""Default file names of the stages, and the hint that names the command which makes a missing one."""

from __future__ import annotations

import shlex
from pathlib import Path
from typing import Any

from engine.errors import BAD_CHECKPOINT, UserError

SAVED = Path("models_save")


def command_hint(command: str, arch: str | None) -> str:
    """A command for the network in question, behind `python -m`."""
    return command if arch in (None, "nin") else f"{command} --arch {shlex.quote(arch)}"


def repeated(arch: str, data: Path = Path("data"), **flags: Any) -> list[str]:
    """Flags that another command needs, too, as words: a network of the user's, where the pictures are, and what was given.

    Args:
        flags: values of further flags by their names; None is left out, several numbers are joined by commas.
    """
    words = ["--arch", arch] if ":" in arch else []
    words += [] if data == Path("data") else ["--data", str(data)]
    for name, value in flags.items():
        if value is not None:
            words += [f"--{name}", ",".join(map(str, value)) if isinstance(value, (list, tuple)) else str(value)]
    return words


def input_file(given: Path | bool | None, default: Path, maker: str) -> Path:
    """The input file of a stage: as given, else (None, or True for a flag without a value) that of the stage before.

    Raises:
        UserError: exit 3, naming the command that makes the default file if that is the one that is missing.
    """
    path = given if isinstance(given, Path) else default
    try:
        there = path.exists()
    except OSError as fault:  # too long, or in a folder that may not be read
        raise UserError(f"{path}: {fault.strerror}", "check the path", BAD_CHECKPOINT) from fault
    if not there:
        words = ["check the path"] if path is given else []
        words += [f"make it with: python -m {maker}"] if path == default else []
        raise UserError(f"{path}: no such file", ", or ".join(words), BAD_CHECKPOINT)
    return path
