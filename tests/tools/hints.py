"""Options in hints: a hint names options of the running command, or of a command that it names."""

from __future__ import annotations

import importlib
import re

from engine.cli.flags import Parser
from scripts import chain
from scripts.console import COMMANDS

OTHERS = r"python -m|ulimit -f|torchrun.*"
"""Other programs in hints, with their options."""


def of_no_command(module: str, err: str) -> list[str]:
    """Return the options in the hints of a command's stderr that neither it nor a command named in the hint has.

    Args:
        module: the command's module.
    """
    found = []
    for line in err.splitlines():
        hint = line.removeprefix("hint: ")
        if hint == line:
            continue
        hint = re.sub(OTHERS, "", hint)
        words = re.findall(r"[\w.]+", hint)
        named = [importlib.import_module(module), *(chain.module(name) for name in COMMANDS if name in words)]
        parsers: list[Parser] = [each.parser() for each in named]
        options = re.findall(r"(?:^|(?<=[\s(`'\"]))--?[A-Za-z]\w*(?:-\w+)*", hint)
        found += [f"{option} in: {line}" for option in options if not any(parser.has(option) for parser in parsers)]
    return found
