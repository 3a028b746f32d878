"""Match the names or patterns (fnmatch) of layers that a user types."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from fnmatch import fnmatchcase

from engine.cli.argtypes import nearest
from engine.errors import UserError

SHOWN = 12
"""The most names in a hint."""


def named(
    flag: str, patterns: Sequence[str], layers: Sequence[str], others: Mapping[str, str] | None = None
) -> list[str]:
    """Return the convolutions and linear layers that the patterns match, pattern by pattern, each once.

    Args:
        flag: the flag of the patterns, for the error.
        layers: the names of all convolutions and linear layers.
        others: other names of some layers, with the layer that each stands for.

    Raises:
        UserError: for a pattern that matches none (exit 2).
    """
    result: list[str] = []
    known = {**(others or {}), **{name: name for name in layers}}
    for pattern in patterns:
        found = [layer for name, layer in known.items() if name == pattern or fnmatchcase(name, pattern)]
        if not found:
            more = f" and {len(layers) - SHOWN} more" if len(layers) > SHOWN else ""
            raise UserError(
                f"{flag} {pattern!r} matches no convolution or linear layer",
                nearest(pattern, layers) or f"the layers are {', '.join(layers[:SHOWN])}{more}",
            )
        result += found
    return list(dict.fromkeys(result))
