"""The contenders of a race, and those that are absent."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from torch import Tensor

Call = Callable[[Tensor], Any]


@dataclass(frozen=True)
class Contender:
    """One way of running the network.

    Args:
        run: returns the answer for normalised pictures.
        compressed: whether it runs the packed network; else it runs a float network of the same widths.
        note: its arithmetic or version, in words.
        size: bytes of the model file that it reads; None without one.
    """

    name: str
    run: Call
    compressed: bool
    note: str = ""
    size: int | None = None


@dataclass(frozen=True)
class Absent:
    """A contender that cannot run here, and why."""

    name: str
    why: str
