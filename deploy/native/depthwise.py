"""Weights of depthwise layers whose taps come in fours, and the order in which their kernel sums; see source/depthwise.h."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
from numpy.typing import NDArray

from deploy.native import steps
from deploy.native.layout import Place
from deploy.native.matrices import Geometry
from deploy.native.steps import Widths

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
    return -(-columns * channels // widths.depthwise_lanes) * 4 <= 3 * columns * -(-channels // widths.depthwise_lanes)


def lanes_of(channels: int, columns: int, in_rows: bool, widths: Widths) -> NDArray[np.int64]:
    """Return the channel of each lane, (parts, lanes of a part); -1: a lane beyond the last channel.

    Args:
        columns: of the result.
        in_rows: whether the lanes of a row are contiguous, so that the channels repeat along it.
    """
    together = widths.depthwise_lanes
    if not in_rows:
        lane = np.arange(-(-channels // together) * together)
        return np.where(lane < channels, lane, -1).reshape(-1, together)
    parts = min(channels // math.gcd(channels, together), -(-columns * channels // together))
    return (np.arange(parts * together) % channels).reshape(parts, together)


def weights_in_order(
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
    ordered = in_order_of_sums(held[:, lanes].reshape(len(planes) * len(lanes), -1, fours, 4))
    ordered = ordered.reshape(len(planes), len(lanes), -1, fours, 4)  # (planes, parts, lanes, fours, bytes)
    return np.ascontiguousarray(ordered.transpose(1, 3, 0, 2, 4)), np.resize(offsets, fours * 4).astype(np.int32)


def settings(
    planes: list[NDArray[np.int64]], form: Geometry, widths: Widths, known: dict[str, Any], source: Place, result: Place
) -> dict[str, Any]:
    """Return the step settings that depend on the weights and on the places of source and result.

    Args:
        planes: of the weights, see weights_in_order.
        form: of the windows.
        widths: of the instruction set.
        known: the settings so far; bias, scale and shift, (channels,), are put into the order of sums.
        source, result: the values that the layer reads and gives.
    """
    channels, columns = result.sides[2], result.sides[1]
    coded = result.kind == steps.BYTE and not known.get("signs")
    ordered = coded or result.kind == steps.FLOAT
    close = ordered and form.stride[1] == 1 and source.pitch == result.pitch == channels
    in_rows = close and rows_pay(channels, columns, widths)
    lanes = lanes_of(channels, columns, in_rows, widths)
    weight, offsets = weights_in_order(planes, lanes, form, source)
    told = {"weight": weight, "offsets": offsets, "count": len(offsets), "parts": len(lanes)}
    told |= {"what": 1 + ordered, "line": columns if in_rows else 1}
    if not ordered:
        return told
    neutral = {"bias": 0, "scale": 1.0, "shift": -0.0}  # x + -0 is x, of x = -0, too
    for name, missing in neutral.items():
        each = known[name]
        each = np.full(channels, missing, np.float32) if each is None else each[:channels]
        told[name] = in_order_of_sums(np.append(each, each.dtype.type(missing))[lanes])
    return told
