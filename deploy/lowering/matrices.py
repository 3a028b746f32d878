"""The matrix of a layer: weights as codes where there are any, a scale, and a bias that is added behind the scale.

`low_bits` quantizes the float weights of a network's first and last layers.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from deploy.operations.base import LARGEST_BIAS, Codes, Integers, Matrix, Numbers
from engine.errors import UserError
from models.layers.quantizers.affine import affine_weight


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


def scaled(
    weight: Codes | Numbers, scale: Numbers | None, bias: NDArray[np.float64], zero: NDArray[np.float64] | None = None
) -> Matrix:
    """Return the matrix of a layer that gives numbers. Its bias is as fine as fp32 is.

    A bias rounded to whole steps of the sums changes codes: of a W2A2 network, up to a fourth of the answers.

    Args:
        scale, bias: (out,), of the real numbers.
        zero: (out,), the sums of an input of the real number 0, in whose codes 0 is another number; None: 0. Its whole part
            is subtracted from the sums, which is exact.
    """
    if zero is None:
        return Matrix(weight, scale, None, _or_none(bias.astype(np.float32)))
    assert scale is not None
    whole = -np.rint(zero)
    return Matrix(
        weight, scale, _or_none(whole.astype(np.int32)), _or_none((bias - (zero + whole) * scale).astype(np.float32))
    )


def _or_none(part: Any) -> Any:
    return part if part.any() else None


def for_sign(weight: Codes, bias: NDArray[np.float64], flip: NDArray[np.float64] | None) -> Matrix:
    """Return the matrix of a layer of whose output times `flip` only the sign is used.

    The bias is rounded so that every sum keeps its sign.
    """
    whole = np.floor(bias) if flip is None else np.where(flip < 0, np.ceil(bias), np.floor(bias))
    return Matrix(weight, None, np.clip(whole, -LARGEST_BIAS, LARGEST_BIAS).astype(np.int32))


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


def of_bytes(weight: Tensor, bias: NDArray[np.float64], mean: Sequence[float], std: Sequence[float]) -> Matrix:
    """Convert a layer that reads normalised pictures to an 8-bit matrix that reads their bytes.

    Args:
        weight: float, (out, in, h, w), in one group.
        bias: (out,).
        mean, std: of each channel.
    """
    spread = torch.tensor([255 * s for s in std], dtype=torch.float64).reshape(-1, 1, 1)
    weight_, scale = low_bits(weight.detach().cpu().double() / spread)
    middle = np.array([255 * m for m in mean]).reshape(-1, 1, 1)
    return scaled(weight_, scale, bias, (weight_.values * middle).reshape(len(bias), -1).sum(1))
