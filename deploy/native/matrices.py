"""Weights as the engine's kernels read them: in blocks of channels, in planes of bits, or as doubles."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from deploy.native.layout import Place
from deploy.operations.base import Codes, Matrix

LANES = 8
BLOCK = 3
"""Vectors of channels that a kernel sums at once."""
MOST_DEPTH = 2**20


@dataclass(frozen=True)
class Geometry:
    """How windows lie on the source. A linear layer has windows of one place."""

    kernel: tuple[int, int] = (1, 1)
    stride: tuple[int, int] = (1, 1)
    padding: tuple[int, int] = (0, 0)
    dilation: tuple[int, int] = (1, 1)
    groups: int = 1


def whole(weight: Codes) -> NDArray[np.int64]:
    """The codes of a weight as (out, in / groups, rows, columns)."""
    return _windows(weight.values.astype(np.int64))


def _windows(values: NDArray) -> NDArray:
    """Weights with the two axes of a window; those of a linear layer are windows of one place."""
    return values[:, :, None, None] if values.ndim == 2 else values


def depth(weight: Codes, largest: int) -> int:
    """How many sums of two products of bytes 16 bits hold; 0: not even one, or weights that are no bytes.

    Args:
        largest: the largest byte of the input.
    """
    values = whole(weight)
    if not values.size or values.min() < -128 or values.max() > 127:
        return 0
    size = np.abs(values)
    # two neighbours of any four: whichever four a channel falls into, no two of its products are larger than these
    pair = int(np.sort(size, axis=1)[:, -2:].sum(1).max()) * largest
    return min(32767 // pair, MOST_DEPTH) if pair else MOST_DEPTH


def blocks(
    values: NDArray[np.int64], geometry: Geometry, source: Place, unit: int
) -> tuple[NDArray, NDArray[np.int32], int, int]:
    """Weights in blocks and the offsets of their windows.

    Args:
        values: (out, in / groups, rows, columns).
        unit: channels that 4 bytes hold: 2 or 4.

    Returns:
        weights (flat), offsets (groups, count) in bytes, outputs of a group in whole vectors, count.
    """
    groups, size = geometry.groups, 4 // unit
    apart = values.reshape(groups, -1, *values.shape[1:])
    each, inputs = apart.shape[1:3]
    first = np.arange(groups) * inputs // unit
    units = int((-(-(np.arange(1, groups + 1) * inputs) // unit) - first).max())
    outputs = -(-each // LANES) * LANES
    rows, columns = geometry.kernel
    packed = np.zeros((groups, outputs, rows, columns, units * unit), np.int64)
    for group in range(groups):
        begin = group * inputs - first[group] * unit
        packed[group, :each, :, :, begin : begin + inputs] = apart[group].transpose(0, 2, 3, 1)
    count = rows * columns * units
    taps = (
        np.arange(rows)[:, None, None] * geometry.dilation[0] * source.line
        + np.arange(columns)[None, :, None] * geometry.dilation[1] * source.pitch
    ) * size
    last = source.pitch // unit - 1  # a group that ends before the longest one reads this again, times 0
    places = np.minimum(first[:, None] + np.arange(units), last) * 4
    offsets = (taps[None] + places[:, None, None, :]).reshape(groups, count)
    flat = packed.reshape(groups, outputs, count, unit)
    parts = []
    for group in range(groups):
        at = 0
        while at < outputs:
            wide = min(BLOCK * LANES, outputs - at)
            block = flat[group, at : at + wide].reshape(wide // LANES, LANES, count, unit)
            parts.append(block.transpose(2, 0, 1, 3).reshape(-1))
            at += wide
    stored = np.concatenate(parts).astype(np.int16 if unit == 2 else np.int8)
    return stored, np.ascontiguousarray(offsets, np.int32), outputs, count


def bits(values: NDArray[np.int64]) -> tuple[NDArray[np.uint64], int, int]:
    """Signs of weights, and which are not 0 where some are: (blocks of LANES outputs, taps, planes, words, LANES).

    Returns:
        the bits, planes, words.
    """
    spread = values.transpose(0, 2, 3, 1).reshape(values.shape[0], -1, values.shape[1])
    planes = [spread > 0] + ([spread != 0] if (spread == 0).any() else [])
    words = -(-spread.shape[2] // 64)
    held = np.zeros((-(-len(spread) // LANES) * LANES, spread.shape[1], len(planes), words * 64), bool)
    for number, plane in enumerate(planes):
        held[: len(spread), :, number, : spread.shape[2]] = plane
    packed = np.packbits(held, axis=-1, bitorder="little").view(np.dtype("<u8")).astype(np.uint64)
    apart = packed.reshape(-1, LANES, *packed.shape[1:])
    return np.ascontiguousarray(np.moveaxis(apart, 1, -1)), len(planes), words


def only_signs(weight: Codes) -> int:
    """What all codes but 0 are in size, where that is one number; else 0."""
    sizes = np.unique(np.abs(weight.values[weight.values != 0]))
    return int(sizes[0]) if len(sizes) == 1 else 0


def doubles(matrix: Matrix, groups: int) -> NDArray[np.float64]:
    """Weights of a layer that sums in fp64: (groups, rows, columns, in, out)."""
    held = matrix.weight.values if isinstance(matrix.weight, Codes) else matrix.weight
    values = _windows(held.astype(np.float64))
    apart = values.reshape(groups, -1, *values.shape[1:])
    return np.ascontiguousarray(apart.transpose(0, 3, 4, 2, 1))
