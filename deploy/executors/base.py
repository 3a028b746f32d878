"""What every executor is."""

from __future__ import annotations

from typing import Protocol

from torch import Tensor


class Executor(Protocol):
    """Something that runs one program.

    Attributes:
        name: as --executor says it.
        how: in which arithmetic it runs here, in words.
    """

    name: str
    how: str

    def __call__(self, x: Tensor) -> Tensor:
        """The answer, fp32, for normalised pictures (N, *program.picture)."""
