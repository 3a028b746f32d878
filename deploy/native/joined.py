"""Moves that are left to the operations that read their values."""

from __future__ import annotations

from collections.abc import Sequence, Set as AbstractSet

from deploy.native import moves
from deploy.operations.base import Operation, Shape
from deploy.operations.functions import Product
from deploy.operations.places import Permute, Reshape, Slice
from deploy.program import Program


class Joined:
    """Moves that are left to the operations behind them: to moves, and to products, which read factors at any distances.

    Their values are not stored, unless a product cannot read one.
    """

    def __init__(self, program: Program, readers: Sequence[Sequence[int]], fixed: AbstractSet[int]) -> None:
        """Find them.

        Args:
            readers: of each value, the operations that read it.
            fixed: values that no move reads or gives.
        """
        self._left: dict[int, tuple[int, tuple[Operation, ...]]] = {}
        for value, operation in enumerate(program.operations, 1):
            behind = [program.operations[reader] for reader in readers[value]]
            if {*operation.sources, value}.isdisjoint(fixed) and _is_left(
                operation, program.values[value].shape, behind
            ):
                first, before = self.origin(operation.sources[0])
                self._left[value] = (first, (*before, operation))

    def __contains__(self, value: int) -> bool:
        return value in self._left

    def origin(self, value: int) -> tuple[int, tuple[Operation, ...]]:
        """Return the stored value that a value comes from, and the moves between."""
        return self._left.get(value, (value, ()))


def _is_left(operation: Operation, shape: Shape, readers: Sequence[Operation]) -> bool:
    """Return whether a move is left to its readers: to one, or to slices that do not read any number twice."""
    if not isinstance(operation, (Permute, Reshape, Slice)) or not readers:
        return False
    if len(readers) > 1:
        parts = [
            len(range(*slice(op.start, op.stop, op.step).indices(shape[op.axis]))) / shape[op.axis]
            for op in readers
            if isinstance(op, Slice)
        ]
        return len(parts) == len(readers) and sum(parts) < 1 + 1e-6
    return isinstance(readers[0], Product) or moves.joins(readers[0])
