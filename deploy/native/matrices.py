"""Weight layouts of the engine's kernels: blocks of channels, taps in fours, and fp64 sums."""

from __future__ import annotations

import math
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
    apart = values.reshape(groups, -1, *values.shape[1:])
    each, inputs = apart.shape[1:3]
    first = np.arange(groups) * inputs // unit
    units = int((-(-(np.arange(1, groups + 1) * inputs) // unit) - first).max())
    lanes = widths.lanes
    outputs = -(-each // lanes) * lanes
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


MOST_PLANES = 3


def in_bytes(values: NDArray[np.int64]) -> list[NDArray[np.int64]] | None:
    """Split numbers into up to MOST_PLANES arrays of bytes whose sum they are; None if these do not hold them."""
    planes = [values.clip(-128, 127)]
    while (rest := values - sum(planes)).any():
        if len(planes) == MOST_PLANES:
            return None
        planes.append(rest.clip(-128, 127))
    return planes


def in_order_of_sums(parts: NDArray) -> NDArray:
    """Return numbers of lanes, (parts, lanes, ...), in the order in which a depthwise kernel sums them.

    Vector v holds lanes 16 L + 4 v + (0 to 3) at its places 4 L + (0 to 3); see source/sixteen.h.
    """
    count, lanes, *rest = parts.shape
    return parts.reshape(count, lanes // 16, 4, 4, *rest).swapaxes(1, 2).reshape(count, lanes, *rest)


def rows_pay(channels: int, columns: int, widths: Widths) -> bool:
    """Return whether a row has far fewer vectors of lanes than its places have together: its weights are stored several times."""
    return -(-columns * channels // widths.apart) * 4 <= 3 * columns * -(-channels // widths.apart)


def lanes_of(channels: int, columns: int, in_rows: bool, widths: Widths) -> NDArray[np.int64]:
    """Return the channel of each lane, (parts, lanes of a part); -1: a lane beyond the last channel.

    Args:
        columns: of the result.
        in_rows: whether the lanes of a row are contiguous, so that the channels repeat along it.
    """
    apart = widths.apart
    if not in_rows:
        lane = np.arange(-(-channels // apart) * apart)
        return np.where(lane < channels, lane, -1).reshape(-1, apart)
    parts = min(channels // math.gcd(channels, apart), -(-columns * channels // apart))
    return (np.arange(parts * apart) % channels).reshape(parts, apart)


def taps_apart(
    planes: list[NDArray[np.int64]], lanes: NDArray[np.int64], geometry: Geometry, source: Place
) -> tuple[NDArray[np.int8], NDArray[np.int32]]:
    """Return a depthwise layer's weights with taps in fours, and the taps' offsets in bytes; see source/depthwise.h.

    Args:
        planes: of bytes, (channels, 1, rows, columns); the weight is their sum.
        lanes: see lanes_of.
    """
    rows, columns = planes[0].shape[2:]
    taps = np.arange(rows)[:, None] * geometry.dilation[0] * source.line
    offsets = (taps + np.arange(columns) * geometry.dilation[1] * source.pitch).reshape(-1)
    fours = -(-len(offsets) // 4)
    held = np.zeros((len(planes), len(planes[0]) + 1, fours * 4), np.int8)  # the last one is that of no channel
    held[:, :-1, : len(offsets)] = [plane.reshape(len(plane), -1) for plane in planes]
    apart = in_order_of_sums(held[:, lanes].reshape(len(planes) * len(lanes), -1, fours, 4))
    apart = apart.reshape(len(planes), len(lanes), -1, fours, 4)  # (planes, parts, lanes, fours, bytes)
    return np.ascontiguousarray(apart.transpose(1, 3, 0, 2, 4)), np.resize(offsets, fours * 4).astype(np.int32)


EIGHT = 8
"""Outputs in a vector of doubles."""


def wide(matrix: Matrix, groups: int) -> NDArray[np.float32]:
    """Return the weights of a layer that sums in fp64, flat, as source/wide.h reads them."""
    values = _windows(_numbers(matrix))
    apart = values.reshape(groups, -1, *values.shape[1:]).transpose(0, 3, 4, 2, 1)  # (groups, rows, columns, in, out)
    parts, outputs = [], apart.shape[-1]
    padded = np.zeros((*apart.shape[:-1], -(-outputs // EIGHT) * EIGHT), np.float32)
    padded[..., :outputs] = apart
    for group in padded:
        at, left = 0, padded.shape[-1] // EIGHT
        while left:
            taken = 4 if left >= 4 else 2 if left >= 2 else 1
            parts.append(group[..., at : at + taken * EIGHT].reshape(-1))
            at, left = at + taken * EIGHT, left - taken
    return np.concatenate(parts)


def wide_apart(matrix: Matrix) -> NDArray[np.float32]:
    """Return the weights of a depthwise layer that sums in fp64, (taps, channels)."""
    return np.ascontiguousarray(_numbers(matrix)[:, 0].transpose(1, 2, 0))


def _numbers(matrix: Matrix) -> NDArray[np.float32]:
    """Return the weights, or their codes, which are exact in fp32."""
    held = matrix.weight.values if isinstance(matrix.weight, Codes) else matrix.weight
    return held.astype(np.float32)
