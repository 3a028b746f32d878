"""Run a command line of the toolkit from Python, in this process, as a shell would run it in one of its own."""

from __future__ import annotations

import contextlib
import importlib
import io
import json
import shlex
from typing import Any

from engine.errors import UserError


def call(line: str) -> None:
    """Run `prune.train -sr` and the like; what it prints goes where this process prints.

    Raises:
        UserError: with the command's own exit code, if it fails.
    """
    module, *argv = shlex.split(line)
    command = importlib.import_module("bn_merge.__main__" if module == "bn_merge" else module)
    if code := command.main(argv):
        raise UserError(f"python -m {line} ended with exit code {code}", "see its error above", code)


def result(line: str) -> dict[str, Any]:
    """The same with --json and --quiet; gives the object that the command prints."""
    with contextlib.redirect_stdout(io.StringIO()) as out:
        call(f"{line} --json --quiet")
    return json.loads(out.getvalue())
