"""The executor of --executor, or the best one that this machine has."""

from __future__ import annotations

from typing import Protocol

from torch import Tensor

from deploy.program import Program
from deploy.reference.run import run

NAMES = ("auto", "torch", "reference")


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


class Reference:
    """Runs a program exactly as it is defined."""

    name = "reference"
    how = "exact whole numbers, the definition"

    def __init__(self, program: Program) -> None:
        self.program = program

    def __call__(self, x: Tensor) -> Tensor:
        return run(self.program, x)


def choose(name: str, program: Program) -> Executor:
    """The executor for a program; `auto` takes the fastest one."""
    from deploy.executors.stock import Stock

    return Reference(program) if name == "reference" else Stock(program)
