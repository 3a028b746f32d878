"""Operations that only move numbers, as runs that are contiguous before and after."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from deploy.native.layout import Place
from deploy.operations.base import Operation, Shape
from deploy.operations.places import Concatenate, Pad, Permute, Reshape, Slice, Upsample, nearest

KINDS = (Concatenate, Pad, Permute, Reshape, Slice, Upsample)
_PADS = {"reflect": "reflect", "replicate": "edge", "circular": "wrap"}
FILL = -1


def known(operation: Operation) -> bool:
    """Return whether an operation is a move."""
    return isinstance(operation, KINDS) and not (isinstance(operation, Upsample) and operation.kind != "nearest")


def joins(operation: Operation) -> bool:
    """Return whether the next move can do an operation's move as well."""
    return isinstance(operation, (Permute, Reshape, Slice))


def runs(
    operation: Operation,
    number: int,
    sources: Sequence[tuple[Place, Sequence[Operation]]],
    shapes: Sequence[Shape],
    result: Place,
) -> NDArray[np.int64]:
    """Return the runs (from, to, count) of one source of an operation; from FILL: the operation fills them in.

    Args:
        number: the index of the source.
        sources: the place of each source, and moves that come before the operation's own.
        shapes: of the sources after these moves.
    """
    to = result.order()
    if isinstance(operation, Concatenate):
        begin = sum(shape[operation.axis] for shape in shapes[:number])
        part = slice(begin, begin + shapes[number][operation.axis])
        to = to[(slice(None),) * operation.axis + (part,)]
    place, before = sources[number]
    begin_of = place.order()
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
