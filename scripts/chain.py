"""Running command lines of the toolkit from Python, in this process instead of a new one, and in a folder of their own."""

from __future__ import annotations

import contextlib
import importlib
import io
import json
import os
import shlex
from collections.abc import Iterator
from pathlib import Path
from types import ModuleType
from typing import Any

from engine.cli.naming import called
from engine.errors import PIPE_CLOSED, UserError


def module(name: str) -> ModuleType:
    """Return the module that `python -m NAME` runs."""
    return importlib.import_module(f"{name}.__main__" if name in ("bn_merge", "engine.checkpoint") else name)


@contextlib.contextmanager
def inside(folder: Path) -> Iterator[None]:
    """Work in a folder, made if it is missing, and go back. contextlib.chdir needs Python 3.11."""
    folder.mkdir(parents=True, exist_ok=True)
    home = Path.cwd()
    os.chdir(folder)
    try:
        yield
    finally:
        os.chdir(home)


def call(line: str) -> None:
    """Run a command line such as `prune.train -sr`. It prints to this process's streams.

    Raises:
        BrokenPipeError: if the reader of its output has gone.
        UserError: with the command's exit code, if it fails.
    """
    name, *argv = shlex.split(line)
    code = module(name).main(argv)
    if code == PIPE_CLOSED:
        raise BrokenPipeError
    if code:
        raise UserError(f"{called(line)} ended with exit code {code}", "see the error above", code)


def result(line: str) -> dict[str, Any]:
    """Run a command line with --json and --quiet and return the object that it prints."""
    with contextlib.redirect_stdout(io.StringIO()) as out:
        call(f"{line} --json --quiet")
    return json.loads(out.getvalue())
