"""Operations that only move numbers, as runs that are contiguous before and after."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from deploy.native.layout import Place
from deploy.operations.base import Operation, Shape
from deploy.operations.places import Concatenate, Pad, Permute, Reshape, Slice, Take, Upsample, nearest

KINDS = (Concatenate, Pad, Permute, Reshape, Slice, Take, Upsample)
_PADS = {"reflect": "reflect", "replicate": "edge", "circular": "wrap"}
FILL = -1


def known(operation: Operation) -> bool:
    """Return whether an operation is a move."""
    return isinstance(operation, KINDS) and not (isinstance(operation, Upsample) and operation.kind != "nearest")


class Joined:
    """Moves that are left to the move behind them, so that their values are never stored."""

    def __init__(self) -> None:
        self._left: dict[int, tuple[int, tuple[Operation, ...]]] = {}

    def origin(self, value: int) -> tuple[int, tuple[Operation, ...]]:
        """Return the stored value that a value comes from, and the moves between."""
        return self._left.get(value, (value, ()))

    def leave(self, value: int, operation: Operation, readers: Sequence[Operation]) -> bool:
        """Leave the move that gives `value` to its only reader, if that is a move, too; return whether it is left.

        Not to an upsampling: it would repeat runs of single numbers once for each copy.
        """
        if len(readers) != 1 or not isinstance(operation, (Permute, Reshape, Slice)):
            return False
        if not known(readers[0]) or isinstance(readers[0], Upsample):
            return False
        first, before = self.origin(operation.sources[0])
        self._left[value] = (first, (*before, operation))
        return True


def runs(
    operation: Operation,
    number: int,
    source: Place,
    before: Sequence[Operation],
    shapes: Sequence[Shape],
    result: Place,
) -> NDArray[np.int64]:
    """Return the runs (from, to, count) of one source of an operation; from FILL: the operation fills them in.

    Args:
        number: the index of the source.
        source: the stored value that it comes from.
        before: the moves between, which are done as well.
        shapes: of all sources, after these moves.
    """
    to = result.order()
    if isinstance(operation, Concatenate):
        begin = sum(shape[operation.axis] for shape in shapes[:number])
        part = slice(begin, begin + shapes[number][operation.axis])
        to = to[(slice(None),) * operation.axis + (part,)]
    begin_of = source.order()
    for each in (*before, operation):
        begin_of = _moved(each, begin_of)
    return _side_by_side(begin_of.reshape(-1), to.reshape(-1))


def _moved(operation: Operation, lies: NDArray[np.int64]) -> NDArray[np.int64]:
    """Return where each number of the result comes from."""
    if isinstance(operation, Permute):
        return lies.transpose(operation.axes)
    if isinstance(operation, Reshape):
        return lies.reshape(operation.shape)
    if isinstance(operation, Slice):
        return lies[(slice(None),) * operation.axis + (slice(operation.start, operation.stop, operation.step),)]
    if isinstance(operation, Take):
        return lies.take(operation.places, operation.axis)
    if isinstance(operation, Upsample):
        rows, columns = (nearest(new, old) for new, old in zip(operation.size, lies.shape[1:], strict=True))
        return lies[:, rows][:, :, columns]
    if isinstance(operation, Pad):
        above, below, left, right = operation.sides
        cut = lies[:, max(-above, 0) : lies.shape[1] - max(-below, 0), max(-left, 0) : lies.shape[2] - max(-right, 0)]
        around = (operation.channels, (max(above, 0), max(below, 0)), (max(left, 0), max(right, 0)))
        if operation.kind == "constant":
            return np.pad(cut, around, constant_values=FILL)
        return np.pad(cut, around, mode=_PADS[operation.kind])  # type: ignore[call-overload]
    return lies


def _side_by_side(begin: NDArray[np.int64], to: NDArray[np.int64]) -> NDArray[np.int64]:
    """Join contiguous numbers into runs, in the order in which they are written."""
    order = np.argsort(to, kind="stable")
    begin, to = begin[order], to[order]
    filled = begin == FILL
    alike = np.where(filled[1:], filled[:-1], (np.diff(begin) == 1) & ~filled[:-1])
    follows = (np.diff(to) == 1) & alike
    heads = np.flatnonzero(np.concatenate([[True], ~follows]))
    counts = np.diff(np.append(heads, len(to)))
    return np.ascontiguousarray(np.stack([begin[heads], to[heads], counts], 1))
