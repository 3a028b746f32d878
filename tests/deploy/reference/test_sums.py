"""Sums and pools in fp64, one number after the other, compared with NumPy loops and windows counted by hand."""

from __future__ import annotations

import itertools
from typing import Any

import numpy as np
import pytest
import torch
from numpy.typing import NDArray
from torch import Tensor
from torch.nn import functional as F

from deploy.operations.base import Value
from deploy.operations.pools import AdaptivePool, AveragePool
from deploy.reference import sums


def pool(**settings: Any) -> AveragePool:
    return AveragePool(**{"stride": (1, 1), **settings}, sources=(0,), name="pool")


def averaged(x: Tensor, operation: AveragePool) -> Tensor:
    """Return the average pool with the number of windows of the operation's own shape."""
    return sums.average_pool(x, operation, *operation.value(Value(tuple(x.shape[1:]))).shape[1:])


def numbers(*shape: int) -> Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(0))


def by_loops(x: NDArray[np.float32], operation: AveragePool, rows: int, columns: int) -> NDArray[np.float32]:
    """Compute means by their definition: every number of every window is added in fp64, row by row."""
    above, below, left, right = operation.padding
    height, width = x.shape[2:]
    found = np.zeros((*x.shape[:2], rows, columns), np.float32)
    for row, column in itertools.product(range(rows), range(columns)):
        total, count = np.zeros(x.shape[:2]), 0
        for i, j in itertools.product(range(operation.kernel[0]), range(operation.kernel[1])):
            y, z = row * operation.stride[0] - above + i, column * operation.stride[1] - left + j
            inside = 0 <= y < height and 0 <= z < width
            total = total + x[:, :, y, z] if inside else total
            count += inside or (operation.counts_padding and y < height + below and z < width + right)
        found[:, :, row, column] = total / (operation.divisor or count)
    return found


@pytest.mark.parametrize("ceil", [False, True])
@pytest.mark.parametrize("counts_padding", [False, True])
@pytest.mark.parametrize("divisor", [None, 5, -2])
@pytest.mark.parametrize(
    ("kernel", "stride", "padding"),
    [
        ((3, 3), (1, 1), (1, 1, 1, 1)),
        ((3, 2), (2, 3), (1, 1, 1, 1)),
        ((4, 4), (3, 2), (2, 0, 1, 2)),  # a different width on each side
        ((2, 3), (2, 2), (0, 1, 0, 1)),
        ((5, 1), (4, 4), (0, 0, 0, 0)),
        ((1, 1), (3, 3), (0, 0, 0, 0)),
    ],
)
def test_means_are_those_of_a_loop(
    kernel: tuple[int, int], stride: tuple[int, int], padding: tuple[int, int, int, int], divisor: int | None,
    counts_padding: bool, ceil: bool,
) -> None:  # fmt: skip
    operation = pool(
        kernel=kernel, stride=stride, padding=padding, ceil=ceil, counts_padding=counts_padding, divisor=divisor
    )
    x = numbers(2, 3, 8, 9)
    found = averaged(x, operation)
    assert found.dtype == torch.float32
    assert np.array_equal(found.numpy(), by_loops(x.numpy(), operation, *found.shape[2:]))
    if padding[::2] == padding[1::2]:
        around = (padding[0], padding[2])
        theirs = F.avg_pool2d(x.double(), kernel, stride, around, ceil, counts_padding, divisor)
        torch.testing.assert_close(found.double(), theirs, rtol=1e-6, atol=1e-7)


@pytest.mark.parametrize(
    ("sides", "settings", "expected"),
    [
        (
            (3, 3), {"kernel": (3, 3), "padding": (1, 1, 1, 1)},
            [[4 / 9, 6 / 9, 4 / 9], [6 / 9, 1, 6 / 9], [4 / 9, 6 / 9, 4 / 9]],
        ),
        ((3, 3), {"kernel": (3, 3), "padding": (1, 1, 1, 1), "counts_padding": False}, [[1, 1, 1]] * 3),
        ((2, 2), {"kernel": (2, 2), "padding": (0, 1, 0, 1)}, [[1, 0.5], [0.5, 0.25]]),
        ((2, 2), {"kernel": (2, 2), "padding": (0, 1, 0, 1), "counts_padding": False}, [[1, 1], [1, 1]]),
        ((2, 2), {"kernel": (2, 2), "padding": (1, 0, 0, 1)}, [[0.5, 0.25], [1, 0.5]]),
        ((3, 3), {"kernel": (2, 2), "stride": (2, 2), "ceil": True}, [[1, 1], [1, 1]]),  # places that ceil adds never count
        # a third window would begin in the padding
        ((3, 3), {"kernel": (2, 2), "stride": (2, 2), "padding": (1, 1, 1, 1), "ceil": True}, [[0.25, 0.5], [0.5, 1]]),
        ((3, 3), {"kernel": (3, 3), "stride": (3, 3), "padding": (1, 1, 1, 1), "ceil": True}, [[4 / 9, 1 / 3], [1 / 3, 1 / 4]]),
        ((2, 2), {"kernel": (2, 2), "divisor": 3}, [[4 / 3]]),
    ],
)  # fmt: skip
def test_means_of_ones_by_hand(sides: tuple[int, int], settings: Any, expected: list[list[float]]) -> None:
    found = averaged(torch.ones(1, 1, *sides), pool(**settings))
    assert found[0, 0].tolist() == np.array(expected, np.float32).tolist()


def test_adaptive_windows_by_hand() -> None:
    """12 places in 7 windows, some of two places and some of three, each with the right start."""
    spans = [(0, 2), (1, 4), (3, 6), (5, 7), (6, 9), (8, 11), (10, 12)]
    x = 2.0 ** torch.arange(12)  # the sum shows which places it contains
    operation = AdaptivePool("mean", (1, 7), sources=(0,), name="pool")
    found = sums.adaptive_pool(x[None, None, None], operation)[0, 0, 0]
    assert found.tolist() == [np.float32(sum(2.0**i for i in range(a, b)) / (b - a)) for a, b in spans]
    largest = sums.adaptive_pool(x[None, None, None], AdaptivePool("max", (1, 7), sources=(0,), name="pool"))
    assert largest[0, 0, 0].tolist() == [2.0 ** (b - 1) for _, b in spans]


@pytest.mark.parametrize("size", [(1, 1), (7, 3), (12, 5), (5, 13), (30, 1)])
@pytest.mark.parametrize("kind", ["mean", "max"])
def test_adaptive_pools_are_those_of_torch(kind: Any, size: tuple[int, int]) -> None:
    x = numbers(2, 3, 12, 5)
    found = sums.adaptive_pool(x, AdaptivePool(kind, size, sources=(0,), name="pool"))
    theirs = F.adaptive_avg_pool2d(x.double(), size) if kind == "mean" else F.adaptive_max_pool2d(x.double(), size)
    assert found.dtype == torch.float32
    torch.testing.assert_close(found.double(), theirs, rtol=1e-6, atol=1e-7)


LARGE = 2.0**53
"""The first number to which fp64 cannot add 1."""


@pytest.mark.parametrize(
    ("given", "total"),
    [
        ([1e16, 1, -1e16], 0), ([1e16, -1e16, 1], 1), ([1, 1, 1e16, -1e16], 2), ([LARGE, 1, 1, 1], LARGE),
        ([1, 1, 1, LARGE], LARGE + 4), ([LARGE, 1, 1, 1, 1, 1, 1, 1, -LARGE], 0),
    ],
)  # fmt: skip
def test_numbers_are_added_one_after_the_other(given: list[float], total: float) -> None:
    """The axis and the number of other sums do not matter."""
    x = torch.tensor(given, dtype=torch.float64)
    assert sums.summed(x, (0,)).tolist() == [total]
    many = x[:, None].expand(-1, 19)
    assert sums.summed(many, (0,)).tolist() == [[total] * 19]
    assert sums.summed(many.T.contiguous(), (1,)).tolist() == [[total]] * 19


def test_the_last_axis_is_added_fastest() -> None:
    x = torch.tensor([[1e16, 1], [-1e16, 1]], dtype=torch.float64)  # 1e16, 1, -1e16, 1: the first 1 is lost
    assert sums.summed(x, (0, 1)).tolist() == [[1]]
    assert sums.summed(x.T.contiguous(), (0, 1)).tolist() == [[2]]  # 1e16, -1e16, 1, 1
    assert sums.summed(x[None, None], (2, 3)).shape == (1, 1, 1, 1)


@pytest.mark.parametrize(
    ("given", "expected"),
    [([[3e8, 1e-9], [-3e8, 1]], 0.25), ([[3e8, -3e8], [1e-9, 1]], np.float32((float(np.float32(1e-9)) + 1) / 4))],
)
def test_a_window_is_added_row_by_row(given: list[list[float]], expected: float) -> None:
    x = torch.tensor(given)[None, None]
    assert averaged(x, pool(kernel=(2, 2))).item() == expected
    assert sums.adaptive_pool(x, AdaptivePool("mean", (1, 1), sources=(0,), name="pool")).item() == expected
