"""The options of scripts.results, for tests of the code below the command."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

from scripts import results
from scripts.ladder.options import Options


def options(**changes: Any) -> Options:
    """Return the options of `--dataset digits --cpu` with changes to any group's fields."""
    plain: Options = results.parser().options_of(["--dataset", "digits", "--cpu"])
    data = {key: changes.pop(key) for key in list(changes) if hasattr(plain.data, key)}
    machine = {key: changes.pop(key) for key in list(changes) if hasattr(plain.machine, key)}
    return replace(plain, data=replace(plain.data, **data), machine=replace(plain.machine, **machine), **changes)
