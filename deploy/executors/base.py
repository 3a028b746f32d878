"""The interface of executors."""

from __future__ import annotations

from typing import Protocol

from torch import Tensor

from deploy.operations.base import Matrix, Operation
from deploy.program import Program


class Executor(Protocol):
    """An executor of one program.

    Attributes:
        name: its value of --executor.
        how: the arithmetic that it uses on this machine, in words.
    """

    name: str
    how: str

    def __call__(self, x: Tensor) -> Tensor:
        """Return the answer, (N, *program.answer) fp32, for normalised pictures, (N, *program.picture); N may be 0.

        Raises:
            ValueError: as Program.pictures.
        """


def layers(program: Program) -> list[tuple[Operation, bool]]:
    """Return the layers with a matrix, and whether each computes on integers alone."""
    found = []
    for operation in program.operations:
        matrix = getattr(operation, "matrix", None)
        if isinstance(matrix, Matrix):
            found.append((operation, matrix.whole(program.values[operation.sources[0]])))
    return found


def arithmetic(program: Program) -> str:
    """Return the arithmetic of a program's layers, in words."""
    whole = [is_whole for _, is_whole in layers(program)]
    if not any(whole):
        return "fp32"
    return "integers" if all(whole) else f"integers in {sum(whole)} of {len(whole)} layers"
