"""Rules for the first and last layers, and for a first layer that reads the picture's bytes."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from deploy.lowering import matrices
from deploy.lowering.builder import Builder, numbers
from deploy.lowering.grids import coded
from deploy.operations.layers import Affine, Convolution
from deploy.operations.places import Pad
from engine.data.info import in_flags
from engine.errors import UserError
from models.layers.quantizers.base import Steps
from models.layers.quantizers.pixels import PixelCodes, by_group

Sides = tuple[int, int, int, int]
"""Padding above, below, left, right."""
Bias = NDArray[np.float64]
"""One number for each filter, (out,)."""


@dataclass(frozen=True)
class Ends:
    """How the first and last layers of an integer network are stored.

    Args:
        names: of the layers whose float weights get 8 bits.
        mean, std: of the pictures, one number for each channel.
        grid: of a normalised picture's codes, for a first layer whose weights are codes already.
    """

    names: frozenset[str]
    mean: tuple[float, ...]
    std: tuple[float, ...]
    grid: Steps


def is_picture(builder: Builder, source: int) -> bool:
    """Return whether a value is the picture, padded or not."""
    while source:
        operation = builder.operations[source - 1]
        if not (isinstance(operation, Pad) and operation.fill == 0):
            return False
        source = operation.sources[0]
    return True


def of_bytes(
    builder: Builder, found: nn.Conv2d, source: int, around: Sides, ends: Ends, weight: Tensor, bias: Bias
) -> int:
    """Add a first layer with float weights as one with 8-bit weights that reads the picture's bytes.

    The weights are rounded, and the zeros of the border.
    """
    spread, middle = ([255 * n for n in each] for each in (ends.std, ends.mean))
    source = _bytes(builder, source, around, spread, middle)
    matrix = matrices.of_bytes(weight, bias, ends.mean, ends.std)
    return builder.add(Convolution, source, matrix=matrix, stride=tuple(found.stride), dilation=tuple(found.dilation))


def of_pixels(
    builder: Builder, found: Any, source: int, around: Sides, ends: Ends, bias: Bias, flip: Bias | None
) -> int:
    """Add a first layer that was trained on the picture's bytes; nothing is rounded.

    Args:
        flip: as in matrices.for_sign.

    Raises:
        UserError: exit 2 if the pictures are normalised in another way than in training.
    """
    codes: PixelCodes = found.input_quantizer
    if (codes.mean, codes.std) != (ends.mean, ends.std):
        own = in_flags(codes.mean, codes.std)
        raise UserError(f"the first layer was trained on bytes of pictures with {own}", "leave --mean and --std out")
    source = _bytes(builder, source, around, codes.spread.flatten().tolist(), codes.middle.flatten().tolist())
    weight = matrices.coded(found.codes, found.weight_bits)
    center = by_group(torch.tensor(codes.centers()), found.out_channels, found.groups).double().numpy()
    zero = (weight.values * center[:, :, None, None]).reshape(len(bias), -1).sum(1)
    if found.scale is None:
        matrix = matrices.for_sign(weight, bias - zero, flip)
    else:
        matrix = matrices.scaled(weight, numbers(found.scale), bias, zero)
    return builder.add(
        Convolution, source, matrix=matrix, stride=tuple(found.stride), dilation=tuple(found.dilation),
        groups=found.groups,
    )  # fmt: skip


def _bytes(builder: Builder, source: int, around: Sides, spread: Sequence[float], middle: Sequence[float]) -> int:
    """Add the bytes of a normalised picture, with a border of the bytes nearest to the mean."""
    if any(around):
        source = builder.add(Pad, source, part=".border", sides=around)
    multiplier, shift = (np.array(each, np.float32) for each in (spread, middle))
    pixels = builder.add(Affine, source, part=".bytes", multiplier=multiplier, shift=shift)
    return coded(builder, pixels, Steps(1.0, 1.0, 0, 255))
