"""Print notices and warnings on stderr, with short lists of names."""

from __future__ import annotations

import sys
from collections.abc import Sequence
from functools import cache

MOST = 5
"""The most names that a list shows."""


def notice(text: str) -> None:
    """Print something that the user may not expect, but that is no mistake."""
    print(f"notice: {text}", file=sys.stderr)


def warning(text: str) -> None:
    """Print something that is probably a mistake."""
    print(f"warning: {text}", file=sys.stderr)


@cache
def warn_once(text: str) -> None:
    """Print a warning once per process, not with every file."""
    warning(text)


def some(names: Sequence[str]) -> str:
    """Return a few names and the number of the others: `a, b and 3 more`."""
    more = len(names) - MOST
    return ", ".join(names[:MOST]) + (f" and {more} more" if more > 0 else "")
