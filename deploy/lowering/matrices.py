"""The matrix of a layer: weights in codes where there are any, and the bias on the grid of the sums.

That grid (scale of the input times scale of the weight) is what integer engines add on; a bias beside it would make them
drift apart. `low_bits` makes codes of the float weights of a network's ends.
"""

from __future__ import annotations

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from deploy.operations.base import Codes, Integers, Matrix, Numbers
from engine.errors import UserError
from models.layers.quantizers.affine import affine_weight

LARGEST_BIAS = 2**30
"""On the grid of the sums; what is larger is added behind the scale, in fp32."""


def coded(values: Tensor, bits: int) -> Codes:
    """Whole numbers of so many bits, (out, ...), in the narrowest form that all of them fit.

    Raises:
        UserError: for numbers that so many bits cannot hold.
    """
    found = values.detach().cpu().numpy().astype(np.int16)
    each = found.reshape(len(found), -1)
    lowest, highest = int(found.min(initial=0)), int(found.max(initial=0))
    seen = set(np.unique(found).tolist()) if found.size else {0}
    if seen <= {-1, 1}:
        return Codes(found, 2, 2, _one(-1))
    if seen <= {-1, 0, 1} and bits == 2:
        return Codes(found, 3, 1, _one(-1))
    levels = 2**bits
    if -(levels // 2) <= lowest and highest < levels // 2:
        return Codes(found, levels, 1, _one(-(levels // 2)))
    if 1 - levels <= lowest and highest <= levels - 1 and all(n % 2 for n in seen):  # DoReFa's
        return Codes(found, levels, 2, _one(1 - levels))
    low = np.minimum(each.min(1), 0).astype(np.int32)  # a zero point for each row
    if (each.max(1) - low >= levels).any():
        raise UserError(f"codes from {lowest} to {highest} in {bits} bits", "make the file again")
    return Codes(found, levels, 1, low)


def _one(number: int) -> Integers:
    return np.array([number], np.int32)


def on_grid(weight: Codes, scale: NDArray[np.float32], bias: NDArray[np.float64]) -> Matrix:
    """The matrix of a layer whose input is in codes; scale and bias (out,) of its real numbers."""
    with np.errstate(divide="ignore", invalid="ignore", over="ignore"):
        steps = bias / scale.astype(np.float64)
    beside = ~(np.abs(steps) <= LARGEST_BIAS)  # a scale of 0, too
    whole = np.rint(np.where(beside, 0, steps)).astype(np.int32)
    shift = np.where(beside, bias, 0).astype(np.float32) if beside.any() else None
    return Matrix(weight, scale, whole if whole.any() else None, shift)


def for_sign(weight: Codes, bias: NDArray[np.float64], flip: NDArray[np.float64] | None) -> Matrix:
    """The matrix of a layer of whose output, times `flip`, the sign alone is looked at: the sign stays for every sum."""
    whole = np.floor(bias) if flip is None else np.where(flip < 0, np.ceil(bias), np.floor(bias))
    return Matrix(weight, None, np.clip(whole, -LARGEST_BIAS, LARGEST_BIAS).astype(np.int32))


def beside_grid(weight: Codes | Numbers, scale: NDArray[np.float32] | None, bias: NDArray[np.float64]) -> Matrix:
    """The matrix of a layer whose sums are no whole numbers."""
    return Matrix(weight, scale, None, bias.astype(np.float32) if bias.any() else None)


def low_bits(weight: Tensor) -> tuple[Codes, NDArray[np.float32]]:
    """Float weights in 8 bits, and the scale of each row, (out,): symmetric, over the range of the row."""
    quantized = affine_weight(weight.detach().float(), 8, symmetric=True, per_channel=True)
    assert quantized.scale is not None
    return coded(quantized.codes.to(torch.int16), 8), quantized.scale.flatten().cpu().numpy().astype(np.float32)
