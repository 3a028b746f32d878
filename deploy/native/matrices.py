"""Weight layouts of the engine's kernels: blocks of channels, and fp64 sums. Depthwise layers: depthwise.py."""

from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray

from deploy.native.layout import Place
from deploy.native.steps import Widths
from deploy.operations.base import Codes, Matrix

MOST_DEPTH = 2**20


@dataclass(frozen=True)
class Geometry:
    """The geometry of a layer's windows. A linear layer has 1x1 windows."""

    kernel: tuple[int, int] = (1, 1)
    stride: tuple[int, int] = (1, 1)
    padding: tuple[int, int] = (0, 0)
    dilation: tuple[int, int] = (1, 1)
    groups: int = 1


def whole(weight: Codes) -> NDArray[np.int64]:
    """Return the codes of a weight as (out, in / groups, rows, columns)."""
    return _windows(weight.values.astype(np.int64))


def _windows(values: NDArray) -> NDArray:
    """Return weights with two window axes; a linear layer gets 1x1 windows."""
    return values[:, :, None, None] if values.ndim == 2 else values


def fit_bytes(weight: Codes) -> bool:
    return not weight.values.size or (weight.values.min() >= -128 and weight.values.max() <= 127)


@dataclass(frozen=True)
class Halves:
    """Weights beyond int8, as factor * stored + each.

    Args:
        stored: numbers that fit int8, in the weights' shape.
        each: (out,).
    """

    stored: NDArray[np.int64]
    factor: int
    each: NDArray[np.int64]


def halves(weight: Codes) -> Halves | None:
    """Split DoReFa's odd 8-bit numbers, or weights on a grid off 0, into Halves; None for other weights."""
    values = whole(weight)
    flat = values.reshape(len(values), -1)
    if not flat.size:
        return None
    low, high = flat.min(1), flat.max(1)
    for factor in (1, 2):
        each = low + 128 * factor
        rest = flat - each[:, None]
        if (high - low <= 255 * factor).all() and not (rest % factor).any():
            return Halves((rest // factor).reshape(values.shape), factor, each)
    return None


def depth(weight: Codes, largest: int) -> int:
    """Return how many sums of two byte products fit in int16; 0: none, or weights beyond int8.

    Args:
        largest: the largest byte of the input.
    """
    if not weight.values.size or not fit_bytes(weight):
        return 0
    size = np.abs(whole(weight))
    # the two largest weights of a row at one place bound any pair, however channels fall into fours
    pair = int(np.sort(size, axis=1)[:, -2:].sum(1).max()) * largest
    return min(32767 // pair, MOST_DEPTH) if pair else MOST_DEPTH


def blocks(
    values: NDArray[np.int64], geometry: Geometry, source: Place, unit: int, widths: Widths
) -> tuple[NDArray, NDArray[np.int32], int, int]:
    """Return weights in blocks and the offsets of their windows.

    Args:
        values: (out, in / groups, rows, columns).
        unit: channels that 4 bytes hold: 2 or 4.

    Returns:
        weights (flat), offsets (groups, count) in bytes, outputs of a group in whole vectors, count.
    """
    groups, size = geometry.groups, 4 // unit
    if source.pitch == source.sides[2] < unit and groups == geometry.dilation[1] == 1:
        # a row of the window is contiguous: treat its bytes as the inputs of one place
        values = values.transpose(0, 3, 1, 2).reshape(len(values), -1, geometry.kernel[0], 1)
        geometry = replace(geometry, kernel=(geometry.kernel[0], 1))
    grouped = values.reshape(groups, -1, *values.shape[1:])
    each, inputs = grouped.shape[1:3]
    first = np.arange(groups) * inputs // unit
    units = int((-(-(np.arange(1, groups + 1) * inputs) // unit) - first).max())
    lanes = widths.lanes
    outputs = -(-each // lanes) * lanes
    rows, columns = geometry.kernel
    packed = np.zeros((groups, outputs, rows, columns, units * unit), np.int64)
    for group in range(groups):
        begin = group * inputs - first[group] * unit
        packed[group, :each, :, :, begin : begin + inputs] = grouped[group].transpose(0, 2, 3, 1)
    count = rows * columns * units
    taps = (
        np.arange(rows)[:, None, None] * geometry.dilation[0] * source.line
        + np.arange(columns)[None, :, None] * geometry.dilation[1] * source.pitch
    ) * size
    # a group with fewer units than the longest reads its last unit again, times weight 0
    last = -(-source.pitch // unit) - 1 if groups > 1 else units
    places = np.minimum(first[:, None] + np.arange(units), last) * 4
    offsets = (taps[None] + places[:, None, None, :]).reshape(groups, count)
    flat = packed.reshape(groups, outputs, count, unit)
    parts = []
    for group in range(groups):
        at = 0
        while at < outputs:
            wide = min(widths.vectors * lanes, outputs - at)
            block = flat[group, at : at + wide].reshape(wide // lanes, lanes, count, unit)
            parts.append(block.transpose(2, 0, 1, 3).reshape(-1))
            at += wide
    stored = np.concatenate(parts).astype(np.int16 if unit == 2 else np.int8)
    return stored, np.ascontiguousarray(offsets, np.int32), outputs, count


EIGHT = 8
"""Outputs in a vector of doubles."""


def wide(matrix: Matrix, groups: int) -> NDArray[np.float32]:
    """Return the weights of a layer that sums in fp64, flat, as source/wide.h reads them."""
    values = _windows(_numbers(matrix))
    grouped = values.reshape(groups, -1, *values.shape[1:]).transpose(0, 3, 4, 2, 1)  # (groups, rows, columns, in, out)
    parts, outputs = [], grouped.shape[-1]
    padded = np.zeros((*grouped.shape[:-1], -(-outputs // EIGHT) * EIGHT), np.float32)
    padded[..., :outputs] = grouped
    for group in padded:
        at, left = 0, padded.shape[-1] // EIGHT
        while left:
            taken = 4 if left >= 4 else 2 if left >= 2 else 1
            parts.append(group[..., at : at + taken * EIGHT].reshape(-1))
            at, left = at + taken * EIGHT, left - taken
    return np.concatenate(parts)


def wide_depthwise(matrix: Matrix) -> NDArray[np.float32]:
    """Return the weights of a depthwise layer that sums in fp64, (taps, channels)."""
    return np.ascontiguousarray(_numbers(matrix)[:, 0].transpose(1, 2, 0))


def _numbers(matrix: Matrix) -> NDArray[np.float32]:
    """Return the weights, or their codes, which are exact in fp32."""
    held = matrix.weight.values if isinstance(matrix.weight, Codes) else matrix.weight
    return held.astype(np.float32)
