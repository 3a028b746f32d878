"""Default file names of the stages, and how a hint names a command, such as the one that makes a missing file."""

from __future__ import annotations

import shlex
import sys
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from engine.cli.archs import is_users_code
from engine.errors import BAD_CHECKPOINT, UserError

SAVED = Path("models_save")

PICTURES = ("data", "dataset", "image_size", "crop", "mean", "std", "val")
"""Flags that say which pictures a network is for; each stage of a chain without files has to be told them."""


def saved(prefix: str, suffix: str = "") -> Path:
    """The default file of a stage: models_save/nin_refine.pth."""
    return SAVED / f"{prefix}{suffix}.pth"


def called(line: str) -> str:
    """A command line as it is to be typed here: behind what started this command, the console script or `python -m`.

    Beside a `quant/` of the user's, `python -m quant.wqaq` would run that one.
    """
    program = Path(sys.argv[0])
    if program.stem == "model-compression":
        return f"model-compression {line}"
    if program.name == "model_compression.py":
        return f"python {shlex.quote(str(program))} {line}"
    return f"python -m {line}"


def command_hint(command: str, arch: str | None) -> str:
    """A command for the network in question, for `called`."""
    return command if arch in (None, "nin") else f"{command} --arch {shlex.quote(arch)}"


def repeated(arch: str, data: Path = Path("data"), **flags: Any) -> list[str]:
    """Flags that another command needs, too, as words: a network of the user's, where the pictures are, and what was given.

    Args:
        flags: values of further flags by their names; None is left out, several numbers are joined by commas.
    """
    words = ["--arch", arch] if is_users_code(arch) else []
    words += [] if data == Path("data") else ["--data", str(data)]
    for name, value in flags.items():
        if value is not None:
            words += [f"--{name}", ",".join(map(str, value)) if isinstance(value, (list, tuple)) else str(value)]
    return words


class Missing(UserError):
    """An input file that is not there.

    Args:
        maker: the command that makes it, if one does.
        check: what to do besides, if anything.
    """

    def __init__(self, path: Path, maker: str = "", check: str = "") -> None:
        self.path, self.maker, self.check = path, maker, check
        making = f"make it with: {called(maker)}" if maker else ""
        super().__init__(f"{path}: no such file", ", or ".join(filter(None, (check, making))), BAD_CHECKPOINT)

    def made_with(self, more: Sequence[str]) -> Missing:
        """The same, its maker with more flags."""
        return Missing(self.path, f"{self.maker} {shlex.join(more)}" if more else self.maker, self.check)


@contextmanager
def carrying(flags: Mapping[str, Any]) -> Iterator[None]:
    """Let the command that makes a missing file have the pictures of the command that misses it.

    Args:
        flags: of the command that runs, by their names; see Options.flat.
    """
    try:
        yield
    except Missing as fault:
        if not fault.maker:
            raise
        typed = {word.partition("=")[0] for word in shlex.split(fault.maker)}
        wanted = {name: flags.get(name) for name in PICTURES if f"--{name}" not in typed}
        data = wanted.pop("data", None) or Path("data")
        wanted["val"] = wanted.get("val") or None
        raise fault.made_with(repeated("", data, **wanted)) from fault


def input_file(given: Path | bool | None, default: Path, maker: str, others: Sequence[Path] = ()) -> Path:
    """The input file of a stage: as given, else (None, or True for a flag without a value) that of the stage before.

    Args:
        others: files that would do instead of the default one, for the hint; --model names one.

    Raises:
        UserError: exit 3, naming the command that makes the default file if that is the one that is missing.
    """
    path = given if isinstance(given, Path) else default
    try:
        there = path.exists()
    except OSError as fault:  # too long, or in a folder that may not be read
        raise UserError(f"{path}: {fault.strerror}", "check the path", BAD_CHECKPOINT) from fault
    if not there:
        check = ["check the path"] if path is given else [f"take --model {shlex.quote(str(each))}" for each in others]
        raise Missing(path, maker if path == default else "", ", or ".join(check))
    return path
