"""Flags as frozen dataclasses: each field declares its flag, and argparse's result is read into it once.

    @dataclass(frozen=True, kw_only=True)
    class Options(Command):
        percent: float = flag("--percent", type=share, default=0.5, help="...")
        data: DataFlags = part(DataFlags)        # a group of flags, see options.py

A dataclass checks its values in __post_init__. Below the command line, no code sees argparse's Namespace.
argtypes.py has the types of values. This module does not import torch, so --help appears at once.
"""

from __future__ import annotations

import argparse
import shlex
import sys
from collections.abc import Mapping, Sequence
from dataclasses import MISSING, Field, dataclass, field, fields
from typing import TYPE_CHECKING, Any, NoReturn

from engine.cli import hints
from engine.cli.naming import called
from engine.errors import UserError

if TYPE_CHECKING:
    from typing_extensions import Self


def flag(*names: str, **how: Any) -> Any:
    """Return a dataclass field for a flag, or for a positional argument without a dash; `how` goes to add_argument."""
    default = how.get("default", False if how.get("action") == "store_true" else None)
    metadata = {"names": names, "how": how}
    if isinstance(default, list):
        return field(default_factory=lambda: list(default), metadata=metadata)
    return field(default=default, metadata=metadata)


def part(kind: type[Options], **changes: Mapping[str, Any] | Any) -> Any:
    """Return a dataclass field for a group of flags.

    Args:
        changes: by the group's field name; a dict updates add_argument's arguments, any other value is the default.
    """
    return field(metadata={"part": kind, "changes": changes})


def dest(option: Field) -> str:
    """Return argparse's name for the value: the flag's own name, as the user spells it."""
    return option.metadata["names"][0].lstrip("-")


@dataclass(frozen=True, kw_only=True)
class Options:
    """A group of flags; `title` is its heading in --help."""

    title = ""

    @classmethod
    def add(cls, parser: argparse.ArgumentParser, changes: Mapping[str, Any] | None = None) -> None:
        """Declare every flag, group by group."""
        group = parser.add_argument_group(cls.title) if cls.title else parser
        for option in fields(cls):
            changed = (changes or {}).get(option.name, {})
            if "names" in option.metadata:
                how = {**option.metadata["how"], **(changed if isinstance(changed, dict) else {"default": changed})}
                group.add_argument(*option.metadata["names"], **how)
            elif "part" in option.metadata:
                option.metadata["part"].add(parser, option.metadata["changes"])
            else:
                parser.set_defaults(**{option.name: changed or option.default})

    @classmethod
    def read(cls, found: argparse.Namespace) -> Self:
        """Return the values of a parsed command line.

        Raises:
            UserError: if they contradict each other (exit 2).
        """
        values: dict[str, Any] = {}
        for option in fields(cls):
            if "part" in option.metadata:
                values[option.name] = option.metadata["part"].read(found)
            elif "names" in option.metadata:
                values[option.name] = getattr(found, dest(option))
            else:
                values[option.name] = getattr(found, option.name)
        return cls(**values)

    def flat(self) -> dict[str, Any]:
        """Return every flag's value by the flag's name."""
        found: dict[str, Any] = {}
        for option in fields(self):
            value = getattr(self, option.name)
            if isinstance(value, Options):
                found |= value.flat()
            elif "names" in option.metadata:
                found[dest(option)] = value
        return found

    def changed(self) -> list[str]:
        """Return the flags of this group, without those of its parts, whose values are not the defaults."""
        own = [option for option in fields(self) if "names" in option.metadata]
        defaults = {o.name: o.default if o.default_factory is MISSING else o.default_factory() for o in own}
        return [o.metadata["names"][0] for o in own if getattr(self, o.name) != defaults[o.name]]


class Parser(argparse.ArgumentParser):
    """An argparse parser that never guesses abbreviations and fails with one error and one hint line.

    Args:
        options: the dataclass that the command line is read into, see `options_of`.
    """

    def __init__(self, prog: str, description: str | None, examples: Sequence[str], options: type[Any]) -> None:
        super().__init__(
            prog=called(prog),
            description=(description or "").partition(": ")[2],
            epilog="examples:\n" + "\n".join(f"  {called(line)}" for line in examples),
            formatter_class=argparse.RawDescriptionHelpFormatter,
            allow_abbrev=False,
        )
        self.name, self.options = prog, options
        options.add(self)

    def options_of(self, argv: Sequence[str]) -> Any:
        """Read a command line. Its `words`, which files record, do not depend on how the command was started.

        Raises:
            UserError: for an unknown flag or a bad value (exit 2).
        """
        found = self.parse_args(list(argv))
        found.words = ("python", "-m", self.name, *argv)
        return self.options.read(found)

    def has(self, flag: str) -> bool:
        """Return whether the command has a flag."""
        return flag in self._option_string_actions

    def parse_args(self, args=None, namespace=None):
        known, unknown = self.parse_known_args(args, namespace)
        if unknown:
            options = [o for action in self._actions for o in action.option_strings]
            raise UserError(
                f"unknown argument {unknown[0]}",
                hints.unknown(unknown[0].split("=")[0], options) or f"see {self.prog} --help",
            )
        return known

    def error(self, message: str) -> NoReturn:
        what, _, hint = message.partition("\n")
        if "expected one argument" in what:
            hint = f"give it a value; write one that begins with a dash as {what.split(':')[0].split()[-1]}=VALUE"
        raise UserError(what, hint or f"see {self.prog} --help")

    def print_help(self, file: Any = None) -> None:
        """Print the help; argparse's own version ignores a closed pipe."""
        print(self.format_help(), end="", file=file)

    def exit(self, status: int = 0, message: str | None = None) -> NoReturn:
        """Flush stdout and exit, so that a closed pipe is noticed here and not when the interpreter ends."""
        sys.stdout.flush()
        super().exit(status, message)

    def _get_option_tuples(self, option_string: str) -> list:
        """Return no abbreviations of `-sr` either: argparse's allow_abbrev covers `--` flags alone."""
        return []

    def _check_value(self, action: argparse.Action, value: Any) -> None:
        """Check `choices` like argparse, with a hint; a positional word with one choice may have been left out."""
        if action.choices is None or value in action.choices:
            return
        known = [str(choice) for choice in action.choices]
        hint = hints.choice(str(value), known, (action.help or "").replace("%%", "%"))
        if not action.option_strings and hint == f"choose {known[0]}":  # the only choice was left out
            hint = f"did you mean: {known[0]} {shlex.quote(str(value))}"
        raise argparse.ArgumentError(action, f"{value!r} is not one of {', '.join(known)}\n{hint}")


def without(words: Sequence[str], flag: str) -> tuple[str, ...]:
    """Return a command line without a flag and its value, which is the next word or follows a `=`."""
    kept: list[str] = []
    value = False  # whether this word may be the flag's value
    for word in words:
        if word != flag and not word.startswith(f"{flag}=") and not (value and not word.startswith("-")):
            kept.append(word)
        value = word == flag
    return tuple(kept)
