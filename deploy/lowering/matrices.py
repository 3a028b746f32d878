"""The matrix of a layer: weights as codes where there are any, and the bias on the grid of the sums.

Integer engines add on that grid: scale of the input times scale of the weight. With a bias off the grid, their
results would drift apart. `low_bits` quantizes the float weights of a network's first and last layers.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from deploy.operations.base import Codes, Integers, Matrix, Numbers
from engine.errors import UserError
from models.layers.quantizers.affine import affine_weight

LARGEST_FINE = 63
"""Largest |weight| after scaling up. AVX2 adds two products of bytes in 16 bits: 2 * 63 * 255 fits, and even 64 would."""
COARSE = 8
"""A row's grid is coarse if its scale exceeds the layer's median scale by this factor."""
LARGEST_BIAS = 2**30
"""On the grid of the sums; a larger bias is added after the scale, in fp32."""


def coded(values: Tensor, bits: int) -> Codes:
    """Return integers of `bits` bits, (out, ...), as codes in the narrowest form that fits them all.

    Raises:
        UserError: exit 2 if the integers do not fit `bits` bits.
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
        raise UserError(f"codes from {lowest} to {highest} do not fit {bits} bits", "make the file again")
    return Codes(found, levels, 1, low)


def _one(number: int) -> Integers:
    return np.array([number], np.int32)


def on_grid(weight: Codes, scale: NDArray[np.float32], bias: NDArray[np.float64], exact: bool = False) -> Matrix:
    """Return the matrix of a layer whose input is in codes.

    Codes of few bits are multiplied by a power of two first: the grid of their sums is too coarse for the bias.

    Args:
        scale, bias: (out,), of the real numbers.
        exact: add the bias's rounding error in fp32 in every row, not only in rows with a coarse grid.
    """
    weight, scale = _finer(weight, scale)
    with np.errstate(divide="ignore", invalid="ignore", over="ignore"):
        steps = bias / scale.astype(np.float64)
    large = ~(np.abs(steps) <= LARGEST_BIAS)  # also true for a scale of 0
    whole = np.rint(np.where(large, 0, steps)).astype(np.int32)
    rest = bias - whole * scale.astype(np.float64)
    beside = large | ((exact | _coarse(scale)) & (rest != 0))
    shift = np.where(beside, rest, 0).astype(np.float32) if beside.any() else None
    return Matrix(weight, scale, whole if whole.any() else None, shift)


def _coarse(scale: NDArray[np.float32]) -> NDArray[np.bool_]:
    """Return which rows have a grid far coarser than the others, (out,).

    Their inputs hardly vary, and a batch norm enlarged them. A bias rounded to such a grid is off by more than
    the row's output varies.
    """
    size = np.abs(scale)
    return size > COARSE * np.median(size[size > 0]) if size.any() else np.zeros(size.shape, bool)


def _finer(weight: Codes, scale: NDArray[np.float32]) -> tuple[Codes, NDArray[np.float32]]:
    largest = max(1, int(np.abs(weight.values).max(initial=1)))
    factor = 1
    smallest = np.abs(scale[scale != 0]).min(initial=1)
    while 2 * factor * largest <= LARGEST_FINE and smallest / factor > np.finfo(np.float32).tiny * 2:
        factor *= 2
    finer = Codes(weight.values * np.int16(factor), weight.levels, weight.step * factor, weight.low * np.int32(factor))
    return finer, scale / np.float32(factor)


def for_sign(weight: Codes, bias: NDArray[np.float64], flip: NDArray[np.float64] | None) -> Matrix:
    """Return the matrix of a layer of whose output times `flip` only the sign is used.

    The bias is rounded so that every sum keeps its sign.
    """
    whole = np.floor(bias) if flip is None else np.where(flip < 0, np.ceil(bias), np.floor(bias))
    return Matrix(weight, None, np.clip(whole, -LARGEST_BIAS, LARGEST_BIAS).astype(np.int32))


def beside_grid(weight: Codes | Numbers, scale: NDArray[np.float32] | None, bias: NDArray[np.float64]) -> Matrix:
    """Return the matrix of a layer whose sums are not integers."""
    return Matrix(weight, scale, None, bias.astype(np.float32) if bias.any() else None)


def low_bits(weight: Tensor) -> tuple[Codes, NDArray[np.float32]]:
    """Quantize float weights, (out, in, ...), to 8 bits: symmetric, over each row's range, rounded by `balanced`.

    Returns:
        codes; the scale of each row, (out,).
    """
    exact = weight.detach().float()
    quantized = affine_weight(exact, 8, symmetric=True, per_channel=True)
    assert quantized.scale is not None
    steps = (exact.double() / quantized.scale.double()).cpu().numpy()
    found = balanced(quantized.codes.cpu().numpy().astype(np.int64), steps, 127)
    return coded(torch.from_numpy(found.astype(np.int16)), 8), quantized.scale.flatten().cpu().numpy().astype(
        np.float32
    )


def balanced(codes: NDArray[np.int64], exact: NDArray[np.float64], largest: int) -> NDArray[np.int64]:
    """Return codes whose rounding errors cancel: their sum is at most half a step.

    This holds within each channel of a filter, then within each filter. Neighbouring pixels are alike, so errors of
    one sign add up. The numbers nearest to the middle between two codes are therefore rounded the other way
    (SQuant, arXiv 2202.07471, section 3).

    Args:
        codes: the nearest codes, (out, in, ...).
        exact: the unrounded numbers in steps, (out, in, ...).
        largest: the largest |code|.
    """
    found = codes.copy()
    if not found.size:
        return found
    for rows in (found.reshape(np.prod(found.shape[:2]), -1), found.reshape(len(found), -1)):
        errors = rows - exact.reshape(rows.shape)
        many = np.rint(errors.sum(1)).astype(np.int64)
        sign = np.sign(many)[:, None]
        can = (errors * sign > 0) & (np.abs(rows - sign) <= largest)
        order = np.argsort(np.where(can, -errors * sign, np.inf), axis=1, kind="stable")
        rank = np.empty_like(order)
        np.put_along_axis(rank, order, np.arange(rows.shape[1])[None], axis=1)
        rows -= np.where(can & (rank < np.abs(many)[:, None]), sign, 0)
    return found


def of_bytes(
    weight: Tensor, bias: NDArray[np.float64], mean: Sequence[float], std: Sequence[float], exact: bool = False
) -> Matrix:
    """Convert a layer that reads normalised pictures to an 8-bit matrix that reads their bytes.

    Args:
        weight: float, (out, in, h, w), in one group.
        bias: (out,).
        mean, std: of each channel.
        exact: as in on_grid.
    """
    spread = torch.tensor([255 * s for s in std], dtype=torch.float64).reshape(-1, 1, 1)
    weight_, scale = low_bits(weight.detach().cpu().double() / spread)
    middle = np.array([255 * m for m in mean]).reshape(-1, 1, 1)
    offset = (weight_.values * middle).reshape(len(bias), -1).sum(1) * scale
    return on_grid(weight_, scale, bias - offset, exact)
