"""Names of layers as people type them: whole, or as patterns (fnmatch). What is done with a named layer: its command's."""

from __future__ import annotations

from collections.abc import Sequence
from fnmatch import fnmatchcase

from engine.cli.argtypes import nearest
from engine.errors import UserError

SHOWN = 12
"""Names in a hint at most."""


def named(flag: str, patterns: Sequence[str], layers: Sequence[str]) -> list[str]:
    """The convolutions and linear layers that these patterns name, pattern by pattern, each once.

    Args:
        flag: that the patterns were given to, for the error.
        layers: the names of all of them.

    Raises:
        UserError: exit 2 for a pattern that names none.
    """
    result: list[str] = []
    for pattern in patterns:
        found = [name for name in layers if name == pattern or fnmatchcase(name, pattern)]
        if not found:
            more = f" and {len(layers) - SHOWN} more" if len(layers) > SHOWN else ""
            raise UserError(
                f"{flag} {pattern!r} matches no convolution or linear layer",
                nearest(pattern, layers) or f"the layers are {', '.join(layers[:SHOWN])}{more}",
            )
        result += found
    return list(dict.fromkeys(result))
