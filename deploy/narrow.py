"""Integer layers in the form of int8 engines: weights from -128 to 127 and positive scales, without rounding.

DoReFa's 8-bit weights are odd numbers from -255 to 255; asymmetric weights reach as far once their zero point is
subtracted. The part of a weight beyond int8 becomes a second weight on a copy of its input channel, so that the sum
stays the same.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from deploy.operations.base import Codes, Matrix, Value, fits_a_byte


@dataclass(frozen=True)
class Narrow:
    """A layer that gives fp32(sum + bias) * scale + shift, as deploy.operations.base.Matrix does.

    Args:
        weight: int8, (out, in / groups, ...).
        channels: of the input, in the order in which the weight reads them; None: in their own order.
        scale: (out,), positive.
        bias: (out,), on the grid of the sums.
        shift: (out,); None: 0.
    """

    weight: NDArray[np.int8]
    channels: NDArray[np.int64] | None
    scale: NDArray[np.float32]
    bias: NDArray[np.int32]
    shift: NDArray[np.float32] | None


def narrow(matrix: Matrix, groups: int, given: Value) -> Narrow | None:
    """Convert a layer for an int8 engine; return None if its input or weight is not in codes of 8 bits or fewer.

    Engines add in int32 and continue in fp32, which rounds sums above 2^24 as the reference does.
    """
    grid, weight = given.grid, matrix.weight
    if not isinstance(weight, Codes) or grid is None or not fits_a_byte(grid):
        return None
    values = weight.values.astype(np.int32)
    rows = len(values)
    scale = np.ones(rows, np.float32) if matrix.scale is None else matrix.scale.copy()
    bias = np.zeros(rows, np.int32) if matrix.bias is None else matrix.bias.copy()
    sign = np.sign(scale).astype(np.int32)  # 0: the scale makes any sum 0
    values = values * sign.reshape(-1, *(1,) * (values.ndim - 1))
    bias, scale = bias * sign, np.where(scale == 0, np.float32(1), np.abs(scale))
    small, channels = _parts(values, groups)
    return Narrow(small, channels, scale, bias.astype(np.int32), matrix.shift)


def _parts(values: NDArray[np.int32], groups: int) -> tuple[NDArray[np.int8], NDArray[np.int64] | None]:
    """Split weights into int8 parts; return them and the input channels that they read."""
    inputs = values.shape[1]
    grouped = values.reshape(groups, -1, *values.shape[1:])  # (groups, out / groups, in / groups, ...)
    parts = [np.clip(grouped, -128, 127)]
    order = [np.tile(np.arange(inputs), (groups, 1))]  # channels of each group
    rest = grouped - parts[0]
    while rest.any():
        needed = rest.reshape(groups, rest.shape[1], inputs, -1).any((1, 3))  # (groups, in / groups)
        if 2 * needed.sum() > needed.size:  # whole copies are faster than a choice of channels
            needed = np.ones_like(needed)
        chosen = np.argsort(~needed, axis=1, kind="stable")[:, : needed.sum(1).max()]  # channels with a rest come first
        taken = np.clip(rest, -128, 127)
        place = chosen.reshape(groups, 1, -1, *(1,) * (values.ndim - 2))
        parts.append(np.take_along_axis(taken, place, 2))
        order.append(chosen)
        rest = rest - taken
    small = np.concatenate(parts, 2).reshape(len(values), -1, *values.shape[2:]).astype(np.int8)
    if len(parts) == 1:
        return small, None
    channels = np.concatenate(order, 1) + np.arange(groups)[:, None] * inputs
    return small, channels.reshape(-1)
