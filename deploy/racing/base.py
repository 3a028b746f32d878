"""What takes part in a race, and what does not."""

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
        run: gives the answer for normalised pictures.
        compressed: whether it runs the packed network; else the float one of the same widths.
        note: how it computes, in words.
        size: bytes of the model it reads, where it reads one.
    """

    name: str
    run: Call
    compressed: bool
    note: str = ""
    size: int | None = None


@dataclass(frozen=True)
class Absent:
    """One that does not take part, and why."""

    name: str
    why: str
