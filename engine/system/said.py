"""What a command says beside its result, on stderr: notices, warnings, and lists of names that do not bury them."""

from __future__ import annotations

import sys
from collections.abc import Sequence

MOST = 5
"""Names that a list shows."""


def notice(text: str) -> None:
    """Say what a user may not expect, and what is right all the same."""
    print(f"notice: {text}", file=sys.stderr)


def warning(text: str) -> None:
    """Say what is likely to be a mistake."""
    print(f"warning: {text}", file=sys.stderr)


def some(names: Sequence[str]) -> str:
    """A few names, and how many more there are: `a, b and 3 more`."""
    more = len(names) - MOST
    return ", ".join(names[:MOST]) + (f" and {more} more" if more > 0 else "")
