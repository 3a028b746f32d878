"""Default file names of the stages, and commands in hints, such as the one that makes a missing file."""

from __future__ import annotations

import shlex
import sys
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from engine.cli.archs import is_users_code
from engine.errors import BAD_CHECKPOINT, UserError

SAVED = Path("models_save")

PICTURES = ("data", "dataset", "image_size", "crop", "mean", "std", "val")
"""Flags that choose the pictures; a hint for a missing file repeats them, as there is no file to read them from."""


def saved(prefix: str, suffix: str = "") -> Path:
    """Return the default file of a stage: models_save/nin_refine.pth."""
    return SAVED / f"{prefix}{suffix}.pth"


def called(line: str) -> str:
    """Return a command line to type: prefixed by what started this command, the console script or `python -m`.

    In a folder with the user's own `quant/`, `python -m quant.wqaq` would run that one instead.
    """
    program = Path(sys.argv[0])
    if program.stem == "model-compression":
        return f"model-compression {line}"
    if program.name == "model_compression.py":
        return f"python {shlex.quote(str(program))} {line}"
    return recorded(line)


def recorded(line: str) -> str:
    """Return a command line as files and results record it: in one form, whatever started this command."""
    return f"python -m {line}"


def command_hint(command: str, arch: str | None) -> str:
    """Return a command with the network's --arch, for `called`."""
    return command if arch in (None, "nin") else f"{command} --arch {shlex.quote(arch)}"


def repeated(arch: str, data: Path = Path("data"), **flags: Any) -> list[str]:
    """Return flags to repeat in another command, as words: the user's own network, the data folder, and `flags`.

    Args:
        flags: values of further flags by their names; None is left out, and several numbers are joined by commas.
    """
    words = ["--arch", arch] if is_users_code(arch) else []
    words += [] if data == Path("data") else ["--data", str(data)]
    for name, value in flags.items():
        if value is not None:
            words += [f"--{name}", ",".join(map(str, value)) if isinstance(value, (list, tuple)) else str(value)]
    return words


class Missing(UserError):
    """The error for a missing input file.

    Args:
        maker: the command that makes it, if one does.
        check: another remedy, if there is one.
    """

    def __init__(self, path: Path, maker: str = "", check: str = "") -> None:
        self.path, self.maker, self.check = path, maker, check
        making = f"make it with: {called(maker)}" if maker else ""
        super().__init__(f"{path}: no such file", ", or ".join(filter(None, (check, making))), BAD_CHECKPOINT)

    def made_with(self, more: Sequence[str]) -> Missing:
        """Return the same error with more flags in the maker's command."""
        return Missing(self.path, f"{self.maker} {shlex.join(more)}" if more else self.maker, self.check)


@contextmanager
def carrying(flags: Mapping[str, Any]) -> Iterator[None]:
    """Add this command's picture flags to the hint for a missing file.

    Args:
        flags: this command's flags by name; see Options.flat.
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


def refuse_input(path: Path, inputs: Iterable[Path], hint: str = "name another --save") -> None:
    """Refuse to write over a file that the command reads.

    Raises:
        UserError: if `path` is one of `inputs` (exit 2).
    """
    if path.resolve() in {read.resolve() for read in inputs}:
        raise UserError(f"{path} is both input and output", hint)


def input_file(given: Path | bool | None, default: Path, maker: str, others: Sequence[Path] = ()) -> Path:
    """Return a stage's input file: `given`, or, for None or True (a flag without a value), the previous stage's file.

    Args:
        others: alternatives to the default file, for the hint (--model takes one).

    Raises:
        UserError: if the file is missing (exit 3); for the default file, the hint names the command that makes it.
    """
    path = given if isinstance(given, Path) else default
    try:
        there = path.exists()
    except OSError as fault:  # name too long, or folder not readable
        raise UserError(f"{path}: {fault.strerror}", "check the path", BAD_CHECKPOINT) from fault
    if not there:
        check = ["check the path"] if path is given else [f"take --model {shlex.quote(str(each))}" for each in others]
        raise Missing(path, maker if path == default else "", ", or ".join(check))
    return path
