"""The numbers of a plan: how many channels go, and which width is the nearest one. Which channels go: plan.py."""

from __future__ import annotations

from collections.abc import Iterable
from math import floor


def check(percent: float, base: int) -> None:
    """Refuse numbers that no plan can have.

    Raises:
        ValueError: percent outside [0, 1) or base below 1.
    """
    if not 0 <= percent < 1 or base < 1:
        raise ValueError(f"percent {percent} is not in [0, 1), or base {base} is below 1")


def to_drop(percent: float, total: int) -> int:
    """How many of all channels go; 0.3 of 10 are 3, whatever 0.3 * 10 is in binary."""
    return floor(percent * total + 1e-9)


def by_distance(count: int, legal: Iterable[int]) -> list[int]:
    """Legal widths, the closest to `count` first; of two equally close ones the larger."""
    return sorted(legal, key=lambda width: (abs(width - count), -width))
