"""Unknown flags: the table of commands and flags equals the parsers'. tests/test_arguments.py has the messages."""

from __future__ import annotations

import importlib

from engine.cli import hints
from scripts import console
from tests.tools.house import commands


def test_the_table_of_flags_is_that_of_the_parsers() -> None:
    modules = {name.removesuffix(".__main__"): importlib.import_module(name) for name in commands()}
    owners: dict[str, list[str]] = {}
    for name in console.COMMANDS:
        for action in modules[name].parser()._actions:
            for option in action.option_strings:
                owners.setdefault(option, []).append(name)
    few = {option: names for option, names in owners.items() if len(names) < 6}
    table = {
        option: commands.replace(" and ", ", ").split(", ")
        for commands, flags in hints.ELSEWHERE.items()
        for option in flags.split()
    }
    assert table == few


def test_other_words_lead_to_flags_that_the_command_has() -> None:
    assert hints.unknown("--out", ["--save"]) == hints.unknown("-o", ["--save"]) == "did you mean --save?"
    assert hints.unknown("--out", ["--csv"]) == hints.unknown("out", ["--save"]) == ""
