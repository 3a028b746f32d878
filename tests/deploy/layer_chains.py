"""Programs of consecutive layers on codes, with the operations that may stand between them."""

from __future__ import annotations

from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from deploy.operations.base import Codes, Matrix, Operation, Value
from deploy.operations.functions import Function
from deploy.operations.layers import Convolution, Linear, Quantize
from deploy.operations.places import Pad, Reshape
from deploy.operations.pools import MaxPool
from deploy.program import Program
from models.layers.quantizers.base import Signs, Steps
from tests.deploy.quantized import as_numbers

SHAPE = (8, 9, 7)
Said = tuple[type[Operation], dict[str, Any]]


def drawn(low: int, high: int, *shape: int) -> NDArray[Any]:
    return np.random.default_rng(0).integers(low, high + 1, shape)


def codes(values: NDArray[Any]) -> Codes:
    return Codes(values.astype(np.int16), 256, 1, np.array([-128], np.int32))


def matrix(rows: int, *rest: int, most: int = 63, gain: float = 1, whole: bool = False) -> Matrix:
    """Draw a matrix: weights up to `most`, scales of both signs, biases on the grid and off it; `whole`: an integer bias only."""
    weight, draws = codes(drawn(-most, most, rows, *rest)), np.random.default_rng(1)
    if whole:
        return Matrix(weight, None, drawn(-9, 9, rows).astype(np.int32))
    scale = gain * draws.uniform(0.2, 1, rows) * draws.choice([-1, 1], rows) / (most * 40 * np.prod(rest) ** 0.5)
    bias, shift = drawn(-99, 99, rows).astype(np.int32), draws.normal(size=rows).astype(np.float32)
    return Matrix(weight, scale.astype(np.float32), bias, shift)


def program(*operations: Said, shape: tuple[int, ...] = SHAPE) -> Program:
    """Return a program of consecutive operations; codes at the end are decoded to numbers."""
    made: list[Operation] = []
    value = Value(shape)
    for kind, settings in operations:
        made.append(kind(**settings, sources=(len(made),), name=f"{len(made)}"))
        value = made[-1].value(value)
    if value.grid is not None:
        made.append(as_numbers(len(made), value.shape))
    return Program(tuple(made), shape, (0.5,) * shape[0], (0.25,) * shape[0])


def given(shape: tuple[int, ...] = SHAPE) -> Tensor:
    return torch.randn(5, *shape, generator=torch.Generator().manual_seed(0))


def quantize(grid: Steps | Signs) -> Said:
    return Quantize, {"grid": grid}


def conv(*weight: int, gain: float = 1, most: int = 63, whole: bool = False, **settings: Any) -> Said:
    return Convolution, {"matrix": matrix(*weight, gain=gain, most=most, whole=whole), **settings}


def linear(*weight: int, **made: Any) -> Said:
    return Linear, {"matrix": matrix(*weight, **made)}


def pool(kernel: tuple[int, int], stride: tuple[int, int], **settings: Any) -> Said:
    return MaxPool, {"kernel": kernel, "stride": stride, **settings}


BYTES, POSITIVE = Steps(40.0, 1 / 40, -128, 127), Steps(100.0, 0.01, 0, 255)
FEW, FEWER = Steps(4.0, 0.25, 0, 15), Steps(2.0, 0.5, -3, 4)
RELU: Said = (Function, {"kind": "relu"})
FLAT: Said = (Reshape, {"shape": (504,)})
SAME: dict[str, Any] = {"padding": (1, 1, 1, 1)}
CODE: Said = quantize(BYTES)
PROGRAMS: dict[str, list[Said]] = {
    "a layer": [CODE, conv(12, 8, 3, 3, **SAME), CODE],
    "codes from 0": [quantize(POSITIVE), conv(12, 8, 3, 3, **SAME), quantize(POSITIVE)],
    "a ReLU": [CODE, conv(12, 8, 3, 3, **SAME), RELU, CODE],
    "a pool": [CODE, conv(12, 8, 3, 3, **SAME), pool((2, 2), (2, 2)), CODE],
    "a pool behind a ReLU": [CODE, conv(12, 8, 3, 3, stride=(2, 1), gain=4), RELU, pool((3, 3), (2, 2), ceil=True, **SAME), quantize(FEW)],
    "two pools": [CODE, conv(12, 8, 1, 1), pool((3, 2), (1, 1), padding=(1, 0, 0, 1)), RELU, pool((2, 2), (1, 2), dilation=(2, 1)), CODE],
    "codes of 4 bits": [quantize(FEW), conv(12, 8, 3, 3, gain=20, **SAME), RELU, quantize(FEW)],
    "codes of 3 bits with a zero": [quantize(FEWER), conv(12, 8, 3, 3, gain=20, **SAME), quantize(FEWER)],
    "groups": [CODE, conv(12, 2, 3, 3, groups=4, **SAME), CODE],
    "each channel apart": [CODE, conv(8, 1, 3, 3, groups=8, stride=(2, 2), gain=4, **SAME), RELU, quantize(FEW)],
    "another border on each side": [CODE, conv(12, 8, 3, 2, padding=(2, 0, 1, 3), dilation=(2, 1)), CODE],
    "a border of its own": [CODE, (Pad, {"sides": (2, 1, 0, 3), "channels": (1, 0)}), conv(12, 9, 3, 3), CODE],
    "a mirrored border": [CODE, (Pad, {"sides": (2, 1, 3, 0), "kind": "reflect"}), conv(12, 8, 3, 3), CODE],
    "a border of the other end": [CODE, (Pad, {"sides": (2, 1, 3, 0), "kind": "circular"}), conv(12, 8, 3, 3), CODE],
    "weights beyond int8": [quantize(Steps(20.0, 0.05, 0, 60)), conv(12, 8, 3, 3, most=255, **SAME), CODE],
    "weights beyond int8 in groups": [quantize(Steps(20.0, 0.05, -30, 30)), conv(12, 4, 3, 3, most=255, groups=2, **SAME), CODE],
    "linear layers": [FLAT, CODE, linear(20, 504), RELU, CODE, linear(40, 20, gain=4), quantize(FEW)],
    "a linear layer over rows": [CODE, linear(6, 7), CODE],
}  # fmt: skip
