"""Numbers that runtimes are known to compute wrongly, by hand, with all of a runtime's optimisations and without any."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from torch import Tensor

pytest.importorskip("onnx")
pytest.importorskip("onnxruntime")

from deploy.operations.base import Matrix, Operation
from deploy.operations.functions import Combine, Constant, Function, Product
from deploy.operations.layers import Convolution, Decode, Linear, Quantize
from deploy.operations.places import Pad, Reshape, Take, Upsample
from deploy.operations.pools import AdaptivePool, AveragePool, MaxPool
from models.layers.quantizers.base import Signs, Steps
from tests.deploy.by_hand import codes, op, program
from tests.deploy.exporting.sessions import answers

ONES = np.ones((1, 1, 3, 3), np.int16)


def found(x: list[list[float]], *operations: Operation, level: str) -> Tensor:
    """Return the answer for one picture of one channel."""
    picture = torch.tensor(x, dtype=torch.float32)[None, None]
    return answers(program(*operations, shape=picture.shape[1:]), picture, level)[0].squeeze(0)


def average(kernel: int, stride: int, *padding: int, counts: bool = True, divisor: int | None = None) -> Operation:
    return op(
        AveragePool, 0, kernel=(kernel, kernel), stride=(stride, stride), padding=padding, counts_padding=counts,
        divisor=divisor,
    )  # fmt: skip


def as_numbers(number: int) -> Operation:
    return op(Convolution, number, matrix=Matrix(codes(ONES[:, :, :1, :1])))


ALL_ONES, TWO = [[1.0] * 3] * 3, [[1.0, 1.0], [1.0, 1.0]]
COUNTED = [[4 / 9, 6 / 9, 4 / 9], [6 / 9, 1, 6 / 9], [4 / 9, 6 / 9, 4 / 9]]
BORDER = op(Pad, 0, sides=(1, 1, 1, 1))
HALVES = op(AveragePool, 1, kernel=(2, 2), stride=(2, 2), counts_padding=False)
CASES: dict[str, tuple[list[list[float]], list[Operation], list[list[float]]]] = {
    "a counted border": (ALL_ONES, [average(3, 1, 1, 1, 1, 1)], COUNTED),
    "a border that does not count": (ALL_ONES, [average(3, 1, 1, 1, 1, 1, counts=False)], ALL_ONES),
    "a border at the end": (TWO, [average(2, 1, 0, 1, 0, 1)], [[1, 0.5], [0.5, 0.25]]),
    "a border at the end that does not count": (TWO, [average(2, 1, 0, 1, 0, 1, counts=False)], TWO),
    "a divisor": ([[1.0] * 5] * 5, [average(5, 2, 1, 1, 1, 1, divisor=3)], [[16 / 3] * 2] * 2),
    "a border of its own is no padding of a mean": (TWO, [BORDER, HALVES], [[0.25, 0.25], [0.25, 0.25]]),
    "a border of its own is no padding of a maximum": (
        [[-1.0, -2.0], [-3.0, -4.0]], [BORDER, op(MaxPool, 1, kernel=(2, 2), stride=(2, 2))], [[0, 0], [0, 0]]
    ),
    "no window begins in the padding": (
        [[0, 1, 2, 3]] * 4,
        [op(MaxPool, 0, kernel=(2, 2), stride=(3, 3), padding=(1, 1, 1, 1), ceil=True)],
        [[0, 3], [0, 3]],
    ),
    "windows that overlap": (
        [list(range(12))], [op(AdaptivePool, 0, kind="mean", size=(1, 7))], [[0.5, 2, 4, 5.5, 7, 9, 10.5]]
    ),
    "nearest": ([[0, 1, 2, 3, 4]], [op(Upsample, 0, kind="nearest", size=(1, 8))], [[0, 0, 1, 1, 2, 3, 3, 4]]),
    "taken": ([[0, 1, 2, 3, 4]], [op(Take, 0, axis=2, places=np.array([4, 0, 0], np.int32))], [[4, 0, 0]]),
    "half is rounded to even by functions, too": ([[0.5, 1.5, -0.5, -2.5]], [op(Function, 0, kind="round")], [[0, 2, 0, -2]]),
    "powers": ([[2, -2, 0, 4]], [op(Constant, numbers=np.array([[[-1, 3, 0, 0.5]]], np.float32)), op(Combine, 0, 1, kind="pow")], [[0.5, -8, 1, 2]]),
    "kept": ([[2, -2, 0, 4]], [op(Constant, numbers=np.array([[[-1, 0, 1, 0.5]]], np.float32)), op(Combine, 0, 1, kind="keep")], [[2, 0, 0, 4]]),
    "linear": ([[0, 4]], [op(Upsample, 0, kind="bilinear", size=(1, 4))], [[0, 1, 3, 4]]),
    "linear from corner to corner": (
        [[0, 3]], [op(Upsample, 0, kind="bilinear", size=(1, 4), align_corners=True)], [[0, 1, 2, 3]]
    ),
    "linear to one": ([[1, 3]], [op(Upsample, 0, kind="bilinear", size=(1, 1))], [[2]]),
    "a matrix squared": ([[1, 2], [3, 4]], [op(Product, 0, 0)], [[7, 10], [15, 22]]),
    "half is rounded to even": (
        [[0.25, 0.75, 1.25, 1.75, -0.25, -0.75]], [op(Quantize, 0, grid=Steps(2.0, 0.5, -8, 7)), as_numbers(1)],
        [[0, 2, 2, 4, 0, -2]],
    ),
    "numbers of codes": (
        [[0.25, 0.75, 9, -9]], [op(Quantize, 0, grid=Steps(2.0, 0.5, -8, 7)), op(Decode, 1)], [[0, 1, 3.5, -4]]
    ),
    "numbers of codes on another scale": (
        [[0.25, 0.75, 9, -9]], [op(Quantize, 0, grid=Steps(2.0, 3.0, -8, 7)), op(Decode, 1)], [[0, 6, 21, -24]]
    ),
    "the sign of 0": ([[0.0, -0.0, 1e-30, -1e-30]], [op(Quantize, 0, grid=Signs()), as_numbers(1)], [[1, 1, 1, -1]]),
    "three signs": (
        [[0.5, 0.51, -0.5, -0.51, 0]], [op(Quantize, 0, grid=Signs(0.5)), as_numbers(1)], [[0, 1, 0, -1, 0]]
    ),
    "the border of signs is 0": (
        ALL_ONES,
        [op(Quantize, 0, grid=Signs()), op(Convolution, 1, matrix=Matrix(codes(ONES)), padding=(1, 1, 1, 1))],
        [[4, 6, 4], [6, 9, 6], [4, 6, 4]],
    ),
    "codes below 0 of a weight that reads numbers": (
        [[1.0, 1.0, 1.0, 1.0]],
        [
            op(Reshape, 0, shape=(4,)),
            op(Linear, 1, matrix=Matrix(codes(np.diag([12, -45, 7, -3])), np.full(4, 0.02, np.float32))),
        ],
        [[0.24, -0.9, 0.14, -0.06]],
    ),
}  # fmt: skip


@pytest.mark.parametrize("level", ["DISABLE_ALL", "ENABLE_ALL"])
@pytest.mark.parametrize("name", CASES)
def test_numbers_by_hand(name: str, level: str) -> None:
    x, operations, expected = CASES[name]
    result = found(x, *operations, level=level)
    torch.testing.assert_close(result.reshape(-1, len(expected[0])), torch.tensor(expected, dtype=torch.float32))


@pytest.mark.parametrize("level", ["DISABLE_ALL", "ENABLE_ALL"])
def test_nearest_places_are_rounded_down(level: str) -> None:
    row = found([[float(n) for n in range(26)]], op(Upsample, 0, kind="nearest", size=(1, 64)), level=level)[0]
    assert row[30:35].tolist() == [12, 12, 13, 13, 13]
