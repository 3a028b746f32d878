"""The flags of quantizers: each is declared with the field of a spec that it sets, and says what it means of a spec.

Needs no torch. What the fields mean is in spec.py, which quantizers use them in models/layers/quantizers/.
"""

from __future__ import annotations

import argparse
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass, field, fields, replace
from typing import Any

from engine.errors import UserError
from models.layers.quantizers.kinds import Traits, all_traits, traits

VALUES: dict[int, int | str] = {2: "b", 3: "t", 32: 32}
"""The original's numbers, which count values, and what they are called everywhere else."""


@dataclass(frozen=True)
class Flag:
    """A flag and the field that it sets.

    Args:
        word: as it is typed, --q_type.
        commands: those of this folder that have it.
        options: of argparse's add_argument.
        part: of a QuantSpec that has the field: "weight" (which may speak for both) or "activation"; "" for itself.
        owner: the part whose quantizer has to have a use for it.
        reads: the field's value of the flag's; None: the command makes more of it than a field.
        field: the field's name, which `flags_of` fills in, or the property that it is compared with.
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
        """The ways to type it."""
        both = self.options.get("action") is argparse.BooleanOptionalAction
        return (self.word, f"--no-{self.name}") if both else (self.word,)

    def of(self, spec: Any) -> Any:
        """What a QuantSpec has there."""
        return getattr(getattr(spec, self.part) if self.part else spec, self.field)


def flagged(default: Any, *flags: Flag) -> Any:
    """A dataclass field with this default that these flags set."""
    return field(default=default, metadata={"flags": flags})


def flags_of(command: str, *specs: type) -> Iterator[Flag]:
    """The flags of a command, in the order of the fields of these dataclasses."""
    for spec in specs:
        for each in fields(spec):
            for found in each.metadata.get("flags", ()):
                if command in found.commands:
                    yield found if found.field else replace(found, field=each.name)


def users(found: Flag) -> list[Traits]:
    """The quantizers that have a use for what a flag sets."""
    return [traits for traits in all_traits().values() if found.field in traits.settings]


def add(group: Any, flags: Iterable[Flag], **changes: dict[str, Any]) -> None:
    """Add flags to an argparse group.

    Args:
        changes: by the name of a flag, what of its options this command has otherwise.
    """
    for found in flags:
        group.add_argument(found.word, **{**found.options, **changes.get(found.name, {})})


def given(values: Mapping[str, Any], flags: Iterable[Flag], part: str) -> dict[str, Any]:
    """The fields of a part of a spec that flags set.

    Args:
        values: the parsed arguments; None where a flag was not given.
    """
    return {
        found.field: found.reads(values[found.name])
        for found in flags
        if found.part == part and found.reads and values[found.name] is not None
    }


def refuse_idle(values: Mapping[str, Any], flags: Iterable[Flag], **parts: tuple[str, str]) -> None:
    """Refuse a flag that has no effect on these quantizers: two runs that differ in it alone would be one.

    Args:
        parts: weight and activation: the quantizer's name, and the flag that chose it.

    Raises:
        UserError: exit 2.
    """
    for found in flags:
        if values[found.name] is not None and (using := users(found)):
            name, chosen = parts[found.owner]
            if found.field not in traits(name).settings:
                words = " or ".join(user.name for user in using)
                raise UserError(f"{found.word} is for {words} {found.owner}s, not {chosen}", f"leave {found.word} out")


def width(text: str) -> int | str:
    """An argparse type: a bit width, or the letter of a quantizer that has one width."""
    numbers, letters = widths()
    if text in letters:
        return text
    if not text.isdecimal() or int(text) not in numbers:
        known = ", ".join((*map(str, numbers), *letters))
        raise argparse.ArgumentTypeError(f"{text!r} is not a bit width\none of {known}")
    return int(text)


def widths() -> tuple[list[int], list[str]]:
    """The numbers that a bit width may be, and the letters."""
    known = all_traits().values()
    numbers = sorted({bits for traits in known if not traits.short_name for bits in traits.bits})
    return numbers, [traits.short_name for traits in known if traits.short_name]


def widths_in_words() -> str:
    """The same for --help, the widest letter first: `2, 3, 4, 32, t ternary, b binary`."""
    lettered = sorted(
        (each for each in all_traits().values() if each.short_name), key=lambda each: each.bits, reverse=True
    )
    return ", ".join((*map(str, widths()[0]), *(f"{each.short_name} {each.name}" for each in lettered)))


def offered() -> str:
    """The quantizers that --quantizer chooses from, in words."""
    several = [traits for traits in all_traits().values() if len(traits.bits) > 1]
    return "; ".join(f"{traits.name}: {traits.words}" if traits.words else traits.name for traits in several)


def as_it_is(value: Any) -> Any:
    """What a flag reads that sets its field to its own value."""
    return value
