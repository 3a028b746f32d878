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
MANY = 16
"""Numbers for each entry from which a move's list of runs is short enough."""


def known(operation: Operation) -> bool:
    """Return whether an operation is a move."""
    return isinstance(operation, KINDS) and not (isinstance(operation, Upsample) and operation.kind != "nearest")


def joins(operation: Operation) -> bool:
    """Return whether an operation is a move that also does moves before it.

    An upsampling does not: it would repeat runs of single numbers once for each copy.
    """
    return known(operation) and not isinstance(operation, Upsample)


def runs(
    operation: Operation,
    number: int,
    source: Place,
    before: Sequence[Operation],
    shapes: Sequence[Shape],
    result: Place,
) -> NDArray[np.int64]:
    """Return the runs of one source of an operation, as source/step.h has them; from FILL: the operation fills them in.

    Args:
        number: the index of the source.
        source: the stored value that it comes from.
        before: the moves between, which are done as well.
        shapes: of all sources, after these moves.
    """
    to: NDArray[np.int64] = result.order()
    if isinstance(operation, Concatenate):
        begin = sum(shape[operation.axis] for shape in shapes[:number])
        part = slice(begin, begin + shapes[number][operation.axis])
        to = to[(slice(None),) * operation.axis + (part,)]
    read, written = lies(source, (*before, operation)).reshape(-1), to.reshape(-1)
    order = _ascending(written)
    assert order is not None
    found = _repeated(_side_by_side(read[order], written[order]))
    if MANY * len(found) > len(read) and (order := _ascending(read)) is not None:
        found = min(found, _repeated(_side_by_side(read[order], written[order])), key=len)
    return found


def _ascending(places: NDArray[np.int64]) -> NDArray[np.int64] | None:
    """Return the order in which numbers ascend; None if two are equal or one is negative. Sorting would take much longer."""
    if places.min() < 0:
        return None
    held = np.full(places.max() + 1, -1)
    held[places] = np.arange(len(places))
    held = held[held >= 0]
    return held if len(held) == len(places) else None


def lies(source: Place, moved: Sequence[Operation]) -> NDArray[np.int64]:
    """Return the position of each number of a stored value, in the shape that some moves give it."""
    found = source.order()
    for each in moved:
        found = _moved(each, found)
    return found


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
    """Join contiguous numbers into runs."""
    filled = begin == FILL
    alike = np.where(filled[1:], filled[:-1], (np.diff(begin) == 1) & ~filled[:-1])
    follows = (np.diff(to) == 1) & alike
    heads = np.flatnonzero(np.concatenate([[True], ~follows]))
    counts = np.diff(np.append(heads, len(to)))
    return np.ascontiguousarray(np.stack([begin[heads], to[heads], counts], 1))


def _repeated(runs: NDArray[np.int64]) -> NDArray[np.int64]:
    """Join runs of one length at equal distances: (from, to, count) become (from, to, count, many, from step, to step)."""
    apart, counts = np.diff(runs[:, :2], axis=0), runs[:, 2]
    alike = (counts[1:] == counts[:-1]) & ((runs[1:, 0] == FILL) == (runs[:-1, 0] == FILL))
    changes = ~((apart[1:] == apart[:-1]).all(1) & alike[1:] & alike[:-1])
    ends = np.append(np.flatnonzero(changes), len(alike) - 1)  # distances that the next one does not continue
    last = ends[np.searchsorted(ends, np.arange(len(alike)))] + 1
    heads, at = [], 0
    while at < len(runs):
        heads.append(at)
        at = int(last[at]) + 1 if at < len(alike) and alike[at] else at + 1
    many = np.diff([*heads, len(runs)])
    steps = np.zeros((len(heads), 2), np.int64)
    repeats = many > 1
    steps[repeats] = apart[np.array(heads)[repeats]]
    return np.ascontiguousarray(np.concatenate([runs[heads], many[:, None], steps], 1))
