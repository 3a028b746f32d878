"""What every executor is."""

from __future__ import annotations

from typing import Protocol

from torch import Tensor

from deploy.operations.base import Matrix, Operation
from deploy.program import Program


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


def layers(program: Program) -> list[tuple[Operation, bool]]:
    """The layers with a matrix, and whether each computes on whole numbers alone."""
    found = []
    for operation in program.operations:
        matrix = getattr(operation, "matrix", None)
        if isinstance(matrix, Matrix):
            found.append((operation, matrix.whole(program.values[operation.sources[0]])))
    return found


def arithmetic(program: Program) -> str:
    """What the layers of a program multiply, in words."""
    whole = [is_whole for _, is_whole in layers(program)]
    if not any(whole):
        return "fp32"
    return "whole numbers" if all(whole) else f"whole numbers in {sum(whole)} of {len(whole)} layers"
