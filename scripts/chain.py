"""Run a command line of the toolkit from Python, in this process, as a shell would run it in one of its own."""

from __future__ import annotations

import contextlib
import importlib
import io
import json
import shlex
from types import ModuleType
from typing import Any

from engine.cli.naming import called
from engine.errors import UserError


def module(name: str) -> ModuleType:
    """The module that `python -m NAME` runs."""
    return importlib.import_module(f"{name}.__main__" if name in ("bn_merge", "engine.checkpoint") else name)


def call(line: str) -> None:
    """Run `prune.train -sr` and the like; what it prints goes where this process prints.

    Raises:
        UserError: with the command's own exit code, if it fails.
    """
    name, *argv = shlex.split(line)
    if code := module(name).main(argv):
        raise UserError(f"{called(line)} ended with exit code {code}", "see its error above", code)


def result(line: str) -> dict[str, Any]:
    """The same with --json and --quiet; gives the object that the command prints."""
    with contextlib.redirect_stdout(io.StringIO()) as out:
        call(f"{line} --json --quiet")
    return json.loads(out.getvalue())
