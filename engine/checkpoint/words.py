"""Word plain values for reports and for `engine.checkpoint inspect`."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any


def listed(*words: str) -> str:
    """Join the words that are not empty with commas."""
    return ", ".join(filter(None, words))


def counted(number: int, noun: str) -> str:
    """Return a number with its noun: `1 epoch`, `2 epochs`, `3 classes`, `4 boxes`."""
    plural = noun + ("es" if noun.endswith(("s", "x", "sh", "tch")) else "s")
    return f"{number:,} {noun if number == 1 else plural}"


def flat(value: Any) -> str:
    """Return a value in one line: `classes 10, groups 1,2,4`; a dict inside another value is in brackets."""
    if isinstance(value, Mapping):
        return ", ".join(f"{key} {_inner(part)}" for key, part in value.items())
    if isinstance(value, (list, tuple)):
        return ",".join(map(_inner, value))
    return str(value)


def _inner(value: Any) -> str:
    return f"({flat(value)})" if isinstance(value, Mapping) else flat(value)


def without_unset(values: Mapping[str, Any]) -> dict[str, Any]:
    """Return a copy without entries that are None, False or an empty list, also in nested dicts."""
    return {
        key: without_unset(value) if isinstance(value, Mapping) else value
        for key, value in values.items()
        if not (value is None or value is False or (isinstance(value, (list, tuple)) and not value))
    }
