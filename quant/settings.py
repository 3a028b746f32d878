"""The flags of quantizers. Each is declared with the field of a spec that it sets.

This module needs no torch. spec.py explains the fields; models/layers/quantizers/ lists the fields of each quantizer.
"""

from __future__ import annotations

import argparse
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass, field, fields, replace
from typing import Any

from engine.errors import UserError
from models.layers.quantizers.kinds import Traits, all_traits, traits

VALUES: dict[int, int | str] = {2: "b", 3: "t", 32: 32}
"""The original's numbers, which count the values of a code, and the names used everywhere else."""


@dataclass(frozen=True)
class Flag:
    """A flag and the field that it sets.

    Args:
        word: the flag as typed, such as --q_type.
        commands: the commands of this folder that have the flag.
        options: keywords of argparse's add_argument.
        part: the part of a QuantSpec with the field: "weight" (which may stand for both), "activation", or "" for the
            spec itself.
        owner: the part whose quantizer must use the field.
        reads: turns the flag's value into the field's; None if the command itself handles the flag.
        field: name of the field, filled in by `flags_of`, or of a property to compare with.
    """

    word: str
    commands: tuple[str, ...]
    options: dict[str, Any]
    part: str = "weight"
    owner: str = "weight"
    reads: Callable[[Any], Any] | None = None
    field: str = ""

    @property
    def name(self) -> str:
        """The flag's name among parsed arguments."""
        return self.word.removeprefix("--")

    @property
    def words(self) -> tuple[str, ...]:
        """The spellings of the flag."""
        both = self.options.get("action") is argparse.BooleanOptionalAction
        return (self.word, f"--no-{self.name}") if both else (self.word,)

    def of(self, spec: Any) -> Any:
        """Return the field's value in a QuantSpec."""
        return getattr(getattr(spec, self.part) if self.part else spec, self.field)

    def typed(self, values: Mapping[str, Any]) -> str:
        """Return the flag as it was given: --no-X for a value that is False."""
        return f"--no-{self.name}" if values[self.name] is False else self.word


def flagged(default: Any, *flags: Flag) -> Any:
    """Declare a dataclass field with a default and the flags that set it."""
    return field(default=default, metadata={"flags": flags})


def flags_of(command: str, *specs: type) -> Iterator[Flag]:
    """Yield the flags of a command, in the order of the fields of these dataclasses."""
    for spec in specs:
        for each in fields(spec):
            for found in each.metadata.get("flags", ()):
                if command in found.commands:
                    yield found if found.field else replace(found, field=each.name)


def users(found: Flag) -> list[Traits]:
    """Return the quantizers that use the field of a flag."""
    return [traits for traits in all_traits().values() if found.field in traits.settings]


def add(group: Any, flags: Iterable[Flag], **changes: dict[str, Any]) -> None:
    """Add flags to an argparse group.

    Args:
        changes: by a flag's name, the options that differ in this command.
    """
    for found in flags:
        group.add_argument(found.word, **{**found.options, **changes.get(found.name, {})})


def given(values: Mapping[str, Any], flags: Iterable[Flag], part: str) -> dict[str, Any]:
    """Return the fields of a part of a spec that the given flags set.

    Args:
        values: the parsed arguments; None for flags that were not given.
    """
    return {
        found.field: found.reads(values[found.name])
        for found in flags
        if found.part == part and found.reads and values[found.name] is not None
    }


def refuse_idle(values: Mapping[str, Any], flags: Iterable[Flag], **parts: tuple[str, str]) -> None:
    """Refuse flags without effect on these quantizers.

    Args:
        parts: for `weight` and `activation`: the quantizer's name, and the flag that chose it.

    Raises:
        UserError: exit 2 for the first such flag.
    """
    for found in flags:
        if values[found.name] is not None and (using := users(found)):
            name, chosen = parts[found.owner]
            if found.field not in traits(name).settings:
                words = " or ".join(user.name for user in using)
                word = found.typed(values)
                raise UserError(f"{word} is for {words} {found.owner}s, not {chosen}", f"leave {word} out")


def width(text: str) -> int | str:
    """Parse a bit width, or the letter of a quantizer with one width, for argparse."""
    numbers, letters = widths()
    if text in letters:
        return text
    if not text.isdecimal() or int(text) not in numbers:
        known = ", ".join((*map(str, numbers), *letters))
        raise argparse.ArgumentTypeError(f"{text!r} is not a bit width\none of {known}")
    return int(text)


def widths() -> tuple[list[int], list[str]]:
    """Return the numbers and the letters that a bit width may be."""
    known = all_traits().values()
    numbers = sorted({bits for traits in known if not traits.short_name for bits in traits.bits})
    return numbers, [traits.short_name for traits in known if traits.short_name]


def widths_in_words() -> str:
    """Return the same for --help, the widest letter first: `2, 3, 4, 32, t ternary, b binary`."""
    lettered = sorted(
        (each for each in all_traits().values() if each.short_name), key=lambda each: each.bits, reverse=True
    )
    return ", ".join((*map(str, widths()[0]), *(f"{each.short_name} {each.name}" for each in lettered)))


def offered() -> str:
    """Return the choices of --quantizer in words."""
    several = [traits for traits in all_traits().values() if len(traits.bits) > 1]
    return "; ".join(f"{traits.name}: {traits.words}" if traits.words else traits.name for traits in several)


def as_it_is(value: Any) -> Any:
    """Return `value`: for flags whose value is the field's value."""
    return value
