"""Prepare layers on signs, and layers that give signs, for the engine's kernels; see source/signs.h."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from deploy.native import steps
from deploy.native.layout import Place
from deploy.native.matrices import Geometry
from deploy.operations.base import Codes, Matrix
from models.layers.quantizers.base import Signs

LOWEST, HIGHEST = -(2**31), 2**31 - 1
THREE = 3
"""Words whose differences two bit counts sum up; see source/threes.h."""
FEWEST = 32
"""Outputs from which counting by threes is quicker."""


def only_signs(weight: Codes) -> int:
    """Return |code| of all codes other than 0 if it is one number; else 0."""
    sizes = np.unique(np.abs(weight.values[weight.values != 0]))
    return int(sizes[0]) if len(sizes) == 1 else 0


def in_threes(values: NDArray[np.int64], planes: int) -> bool:
    """Return whether a layer counts three words at a time.

    If a code may be 0, the bits to count differ from word to word, so words cannot be joined. To bring a value into this form
    costs more than it saves for few outputs, or for one tap if some words of a place are left over.

    Args:
        values: of the weights, (out, in, rows, columns).
        planes: of the source.
    """
    words, taps = steps.words(values.shape[1]), values[0, 0].size
    pays = len(values) >= FEWEST and words >= THREE and (taps > 1 or words % THREE == 0)
    return pays and planes == 1 and bool((values != 0).all())


def settings(values: NDArray[np.int64], geometry: Geometry, source: Place, result: Place, lanes: int) -> dict[str, Any]:
    """Return the step settings of a layer on signs that depend on its weights and windows.

    Args:
        values: (out, in, rows, columns), 0 or numbers of one absolute value.
        lanes: outputs that are counted at once.
    """
    positive, nonzero = values > 0, values != 0
    planes = [positive] if nonzero.all() else [positive, nonzero]
    held = np.stack([_words(plane, lanes) for plane in planes], 3)  # (blocks, taps, words, planes, lanes)
    rows, columns = (np.arange(n) for n in geometry.kernel)
    words = steps.words(values.shape[1])
    places = (
        rows[:, None, None] * geometry.dilation[0] * source.line
        + columns[:, None] * geometry.dilation[1] * source.pitch
    )
    threes = words // THREE if source.in_threes else 0
    held, begins = _threes_first(held, threes)
    spans, base = _bases(positive, nonzero, geometry, source, result, lanes)
    return {
        "weight": held, "count": places.size * len(begins), "threes": places.size * threes, "depth": int(np.abs(values).max()),
        "what": int(source.planes == 2) + 2 * int(len(planes) == 2), "spans": spans, "base": base, "kinds": len(base),
        "offsets": np.concatenate([(places + part).reshape(-1) for part in np.split(begins, [threes])]).astype(np.int32),
    }  # fmt: skip


def _words(plane: NDArray[np.bool_], lanes: int) -> NDArray[np.uint32]:
    """Pack a plane of bits, (out, in, rows, columns), into words, (blocks, taps, words, lanes)."""
    spread = plane.transpose(0, 2, 3, 1)
    outputs, words = -(-len(spread) // lanes) * lanes, steps.words(spread.shape[3])
    held = np.zeros((outputs, *spread.shape[1:3], words * steps.WORD), bool)
    held[: len(spread), :, :, : spread.shape[3]] = spread
    return _packed(held).reshape(outputs // lanes, lanes, -1, words).transpose(0, 2, 3, 1)


def _threes_first(words: NDArray[np.uint32], threes: int) -> tuple[NDArray[np.uint32], NDArray[np.int64]]:
    """Put the threes of all taps before the words of all taps that are left.

    Args:
        words: (blocks, taps, words, planes, lanes).
        threes: of each tap.

    Returns:
        the words, (blocks, taps and words, planes, lanes); for a tap, the first word of each three, then the other words.
    """
    blocks, taps, many, *rest = words.shape
    first, left = np.split(words, [threes * THREE], axis=2)
    forms = np.bitwise_xor.accumulate(first.reshape(blocks, taps, threes, THREE, *rest), axis=3)
    parts = [part.reshape(blocks, -1, *rest) for part in (forms, left)]
    begins = np.concatenate([np.arange(threes) * THREE, np.arange(threes * THREE, many)])
    return np.ascontiguousarray(np.concatenate(parts, axis=1)), begins


def _packed(held: NDArray[np.bool_]) -> NDArray[np.uint32]:
    """Pack the bits of the last axis into words."""
    return np.packbits(held, axis=-1, bitorder="little").view(np.dtype("<u4")).astype(np.uint32)


def _bases(
    positive: NDArray[np.bool_],
    nonzero: NDArray[np.bool_],
    geometry: Geometry,
    source: Place,
    result: Place,
    lanes: int,
) -> tuple[NDArray[np.int32], NDArray[np.int32]]:
    """Return the sums of windows in which no bit differs, for each kind of place.

    Places are of one kind if the same taps of their windows lie inside the input. In the border all bits are 0 and differ
    from those of positive weights; the base compensates for that.

    Returns:
        the kind of each row of places, then of each column, to be added; the base, (kinds, outputs).
    """
    inside: list[NDArray[np.bool_]] = []
    numbers: list[NDArray[np.intp]] = []
    for axis in range(2):
        first = np.arange(result.sides[axis])[:, None] * geometry.stride[axis] - geometry.padding[axis]
        at = first + np.arange(geometry.kernel[axis]) * geometry.dilation[axis]
        kinds, number = np.unique((at >= 0) & (at < source.sides[axis]), axis=0, return_inverse=True)
        inside.append(kinds)
        numbers.append(number.reshape(-1))
    outputs = len(positive)
    many, plus = (part.sum(1).astype(np.int64) for part in (nonzero, positive))
    counted = np.einsum("rh,cw,ohw->rco", *inside, many) + 2 * (
        plus.sum((1, 2)) - np.einsum("rh,cw,ohw->rco", *inside, plus)
    )
    base = np.zeros((len(inside[0]) * len(inside[1]), -(-outputs // lanes) * lanes), np.int32)
    base[:, :outputs] = counted.reshape(-1, outputs)
    spans = np.concatenate([numbers[0] * len(inside[1]), numbers[1]]).astype(np.int32)
    return spans, base


def limits(
    base: NDArray[np.int32], depth: int, bias: NDArray[np.int32], bounds: NDArray[np.int32], outputs: int
) -> NDArray[np.int32]:
    """Return how many bits may differ while a sum reaches its bound, (planes, kinds, outputs).

    A limit of -1, as padding outputs have, is never kept.

    Args:
        base, depth: from `settings`.
        bounds: from `bounds`.
    """
    found = np.full((len(bounds), *base.shape), -1, np.int32)
    room = base[:, :outputs].astype(np.int64) * depth + bias[:outputs] - bounds[:, None, :outputs].astype(np.int64)
    found[:, :, :outputs] = np.clip(room // (2 * depth), -1, HIGHEST)
    return found


def bounds(matrix: Matrix, grid: Signs, outputs: int, lanes: int) -> dict[str, Any]:
    """Return the bounds of sums, bias included, from which results are positive; on grids with 0, also negative.

    A result rises with its sum, or falls if its scale is negative, so one bound separates the signs. The search uses the
    reference's own fp32 operations.
    """
    edge = np.float32(0 if grid.edge is None else grid.edge)
    tests = [lambda y: y >= 0] if grid.edge is None else [lambda y: y > edge, lambda y: y < -edge]
    told = [_bound(matrix, test, outputs) for test in tests]
    # kernels read whole vectors: channels beyond the last one never reach their bound, and give zeros
    rows = np.full((len(told), outputs + lanes), HIGHEST, np.int32)
    words = np.zeros((len(told), steps.words(outputs) * steps.WORD), bool)
    for row, (bound, flipped) in enumerate(told):
        rows[row, :outputs], words[row, :outputs] = bound, flipped
    return {"bounds": rows, "flips": _packed(words)}


def _bound(matrix: Matrix, test: Any, outputs: int) -> tuple[NDArray[np.int64], NDArray[np.bool_]]:
    """Return each output's lowest sum that passes a test, or, if flipped, that fails it; and whether it is flipped."""

    def passes(sums: NDArray[np.int64]) -> NDArray[np.bool_]:
        y = sums.astype(np.int32).astype(np.float32)
        with np.errstate(over="ignore"):
            y = y if matrix.scale is None else y * matrix.scale
            y = y if matrix.shift is None else y + matrix.shift
        return np.broadcast_to(test(y), (outputs,))

    low, high = np.full(outputs, LOWEST, np.int64), np.full(outputs, HIGHEST, np.int64)
    flipped = passes(low)  # sums from the bound on fail the test
    never = passes(high) == flipped  # all sums give the same result
    while (low + 1 < high).any():
        middle = (low + high) // 2
        changed = passes(middle) != flipped
        low, high = np.where(changed, low, middle), np.where(changed, middle, high)
    return np.where(never, LOWEST, high), np.where(never, ~flipped, flipped)
