"""The arithmetic of a plan: the number of channels to drop and the nearest legal widths. The channels: plan.py."""

from __future__ import annotations

from collections.abc import Iterable
from math import floor


def check(percent: float, base: int) -> None:
    """Check the numbers of a plan.

    Raises:
        ValueError: percent outside [0, 1) or base below 1.
    """
    if not 0 <= percent < 1 or base < 1:
        raise ValueError(f"percent {percent} is not in [0, 1), or base {base} is below 1")


def to_drop(percent: float, total: int) -> int:
    """Return floor(percent * total), the number of channels to drop, safe against binary fractions: 0.3 of 10 is 3."""
    return floor(percent * total + 1e-9)


def by_distance(count: int, legal: Iterable[int]) -> list[int]:
    """Sort legal widths by their distance to `count`, of two equally close ones the larger first."""
    return sorted(legal, key=lambda width: (abs(width - count), -width))
