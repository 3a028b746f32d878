"""Layers and codes of the reference equal integers in NumPy's int64, bit for bit."""

from __future__ import annotations

import itertools
from typing import Any

import numpy as np
import pytest
import torch
from numpy.typing import NDArray
from torch import Tensor
from torch.nn import functional as F

from deploy.operations.base import Codes, Matrix, Operation
from deploy.operations.layers import Affine, Convolution, Decode, Linear, Quantize, Transposed
from deploy.operations.places import Reshape
from deploy.program import Program
from deploy.reference.run import codes_of, run
from models.layers.quantizers.base import Signs, Steps

WHOLE = Steps(1.0, 1.0, -(2**15), 2**15 - 1)
"""Codes of integers."""


def program(*operations: Operation, picture: tuple[int, ...]) -> Program:
    return Program(operations, picture, (0.5,) * picture[0], (0.25,) * picture[0])


def codes(values: Any) -> Codes:
    """Return weights as int16; their storage does not matter here."""
    return Codes(np.array(values, np.int16), 256, 1, np.array([-128], np.int32))


def drawn(low: int, high: int, *shape: int, seed: int = 0) -> NDArray[np.int64]:
    return np.random.default_rng(seed).integers(low, high + 1, shape)


def layer(x: Any, grid: Steps | Signs, kind: type[Operation], **settings: Any) -> NDArray[np.float32]:
    """Return the output of one layer that reads integers, (N, C, H, W) or (N, C), as codes of a grid."""
    given = torch.from_numpy(np.asarray(x, np.float32))
    picture, flat = (*given.shape[1:], 1, 1)[:3], Reshape(tuple(given.shape[1:]), sources=(0,), name="flat")
    coded, last = Quantize(grid, sources=(1,), name="codes"), kind(**settings, sources=(2,), name="layer")
    return run(program(flat, coded, last, picture=picture), given.reshape(-1, *picture)).numpy()


def convolved(x: NDArray[Any], w: NDArray[Any], stride: Any = (1, 1), padding: Any = (0,) * 4, dilation: Any = (1, 1),
              groups: int = 1) -> NDArray[Any]:  # fmt: skip
    """Compute a convolution by its definition in its arguments' type, padded with 0."""
    above, below, left, right = padding
    x = np.pad(x, ((0, 0), (0, 0), (above, below), (left, right)))
    reach = [d * (k - 1) for d, k in zip(dilation, w.shape[2:], strict=True)]
    rows, columns = ((x.shape[2 + i] - reach[i] - 1) // stride[i] + 1 for i in range(2))
    found = np.zeros((len(x), len(w), rows, columns), x.dtype)
    each, inputs = len(w) // groups, w.shape[1]
    for out, row, column in itertools.product(range(len(w)), range(rows), range(columns)):
        first = out // each * inputs
        top, start = row * stride[0], column * stride[1]
        part = x[
            :,
            first : first + inputs,
            top : top + reach[0] + 1 : dilation[0],
            start : start + reach[1] + 1 : dilation[1],
        ]
        found[:, out, row, column] = (part * w[out]).sum((1, 2, 3))
    return found


GEOMETRIES: list[dict[str, Any]] = [
    {},
    {"padding": (1, 1, 1, 1)},
    {"padding": (1, 1, 1, 1), "stride": (2, 3)},
    {"padding": (2, 0, 1, 3)},
    {"padding": (0, 1, 0, 1), "stride": (2, 2)},
    {"padding": (2, 2, 3, 3), "dilation": (2, 3)},
    {"padding": (1, 1, 1, 1), "groups": 2},
    {"padding": (1, 1, 1, 1), "groups": 4, "stride": (2, 2)},
    {"padding": (0, 3, 2, 1), "groups": 2, "stride": (1, 2), "dilation": (2, 1)},
]  # fmt: skip


@pytest.mark.parametrize("geometry", GEOMETRIES, ids=str)
@pytest.mark.parametrize("grid", [Steps(1.0, 1.0, -100, 155), Signs(), Signs(0.5)], ids=str)
def test_a_convolution_of_codes_is_one_of_whole_numbers(grid: Steps | Signs, geometry: dict[str, Any]) -> None:
    low, high = (grid.low, grid.high) if isinstance(grid, Steps) else (-1, 1)
    x, w = drawn(low, high, 2, 4, 9, 8), drawn(-128, 127, 8, 4 // geometry.get("groups", 1), 3, 3)
    x = np.where(x == 0, 1, x) if grid == Signs() else x
    found = layer(x, grid, Convolution, matrix=Matrix(codes(w)), **geometry)
    assert np.array_equal(found, convolved(x, w, **geometry))


def test_a_border_is_0_and_not_a_code() -> None:
    """This holds for signs, too, which have no 0: 4, 6 or 9 places of a window lie inside."""
    ones, w = np.ones((1, 1, 4, 4)), np.ones((1, 1, 3, 3))
    found = layer(ones, Signs(), Convolution, matrix=Matrix(codes(w)), padding=(1, 1, 1, 1))
    assert found[0, 0].tolist() == [[4, 6, 6, 4], [6, 9, 9, 6], [6, 9, 9, 6], [4, 6, 6, 4]]


def test_a_linear_layer_of_codes_and_what_is_added_to_it() -> None:
    """fp32(sum + bias) * scale + shift, in this order, each rounded to fp32."""
    x, w, bias = drawn(0, 15, 5, 40), drawn(-7, 7, 6, 40), drawn(-1000, 1000, 6)
    scale, shift = (np.random.default_rng(i).normal(size=6).astype(np.float32) for i in (1, 2))
    sums = x @ w.T
    for parts, wanted in (
        ({}, sums.astype(np.float32)),
        ({"bias": bias}, (sums + bias).astype(np.float32)),
        ({"scale": scale}, sums.astype(np.float32) * scale),
        ({"shift": shift}, sums.astype(np.float32) + shift),
        ({"scale": scale, "bias": bias, "shift": shift}, (sums + bias).astype(np.float32) * scale + shift),
    ):
        kept = {key: value.astype(np.int32) if key == "bias" else value for key, value in parts.items()}
        assert np.array_equal(layer(x, Steps(1.0, 1.0, 0, 15), Linear, matrix=Matrix(codes(w), **kept)), wanted)


def test_a_layer_rounds_scale_and_shift_apart() -> None:
    """4097^2 = 2^24 + 2^13 + 1 is rounded before the shift is subtracted; a fused multiply-add would leave the 1."""
    matrix = Matrix(codes([[1]]), np.array([4097], np.float32), None, np.array([-(2**24) - 2**13], np.float32))
    assert layer([[4097]], WHOLE, Linear, matrix=matrix).tolist() == [[0]]


@pytest.mark.parametrize("kind", [Linear, Convolution])
def test_sums_above_what_fp32_counts_are_exact(kind: type[Operation]) -> None:
    """16,384 large products and as many negative ones cancel: fp32 would round each addition and lose the small rest."""
    x = drawn(128, 255, 2, 2**15) | 1
    w = (drawn(100, 127, 1, 2**15, seed=1) | 1) * np.where(np.arange(2**15) < 2**14, 1, -1)
    exact = x @ w.T
    assert (abs(exact) < 2**24).all()
    given, weight = (x, w) if kind is Linear else (x[:, :, None, None], w[:, :, None, None])
    assert np.array_equal(
        layer(given, Steps(1.0, 1.0, 0, 255), kind, matrix=Matrix(codes(weight))).reshape(2, 1), exact
    )
    rounded = F.linear(torch.from_numpy(x).float(), torch.from_numpy(w).float())
    assert not np.array_equal(rounded.numpy(), exact)


@pytest.mark.parametrize(
    ("bias", "expected"),
    [
        (0, 2**24),  # 2^24 + 1 is a tie, rounded to even
        (1, 2**24 + 2),  # if the sum were rounded before the bias is added, it would stay 2^24
        (2, 2**24 + 4),
        (-1, 2**24),
        (-2, 2**24 - 1),
        (2**30, 2**30 + 2**24),
    ],
)
def test_a_sum_is_rounded_once(bias: int, expected: int) -> None:
    x = np.array([[255] * 518 + [14, 9]])  # 518 * 255 * 127 + 14 * 127 + 9 = 2^24 + 1
    w = np.array([[127] * 519 + [1]])
    assert (x @ w.T).item() == 2**24 + 1
    matrix = Matrix(codes(w), None, np.array([bias], np.int32))
    assert layer(x, Steps(1.0, 1.0, 0, 255), Linear, matrix=matrix).item() == expected


@pytest.mark.parametrize("geometry", GEOMETRIES, ids=str)
def test_numbers_are_summed_in_fp64(geometry: dict[str, Any]) -> None:
    """The numbers have few digits, so that no order of the fp64 sum rounds; fp32 would round."""
    x = drawn(-(2**12), 2**12, 2, 4, 9, 8) / 2**6
    w = drawn(-(2**20), 2**20, 8, 4 // geometry.get("groups", 1), 3, 3) / 2**20
    scale, shift = (np.random.default_rng(i).normal(size=8).astype(np.float32) for i in (1, 2))
    operation = Convolution(Matrix(w.astype(np.float32), scale, None, shift), **geometry, sources=(0,), name="layer")
    found = run(program(operation, picture=(4, 9, 8)), torch.from_numpy(x).float()).numpy()
    sums = convolved(x, w, **geometry)
    assert np.array_equal(found, sums.astype(np.float32) * scale[:, None, None] + shift[:, None, None])


def test_a_transposed_convolution_lays_its_weight_at_every_place() -> None:
    x, w, shift = drawn(-9, 9, 1, 4, 3, 2), drawn(-9, 9, 4, 3, 3, 2), np.array([0.5, -1, 2, 3, 4, 5], np.float32)
    wanted = np.zeros((1, 6, 12, 9))
    for channel, row, column in itertools.product(range(4), range(3), range(2)):
        first = channel // 2 * 3  # two groups
        wanted[0, first : first + 3, row * 3 : row * 3 + 5 : 2, column * 2 : column * 2 + 2] += (
            x[0, channel, row, column] * w[channel]
        )
    wanted = wanted[:, :, 1:11, :4] + shift[:, None, None]  # 1 row cut off on each side; 0 more
    operation = Transposed(w.astype(np.float32), shift, (3, 2), (1, 0), (1, 0), (2, 1), 2, sources=(0,), name="layer")
    found = run(program(operation, picture=(4, 3, 2)), torch.from_numpy(x).float())
    assert found.shape == (1, 6, 10, 4)
    assert np.array_equal(found.numpy(), wanted)


def test_an_affine_operation_rounds_twice() -> None:
    near = 1 + 2.0**-12
    numbers = [np.array([n], np.float32) for n in (near, -(1 + 2.0**-11))]
    operation = Affine(*numbers, sources=(0,), name="affine")
    assert run(program(operation, picture=(1, 1, 1)), torch.full((1, 1, 1, 1), near)).item() == 0


@pytest.mark.parametrize(
    ("grid", "given", "expected"),
    [
        (Steps(2.0, 0.5, -8, 7), [0.25, 0.75, 1.25, 1.75, -0.25, -0.75], [0, 2, 2, 4, 0, -2]),  # half to even
        (Steps(2.0, 0.5, -8, 7), [3.5, 3.7, 3.76, 1e30, np.inf, -4, -4.3, -np.inf], [7, 7, 7, 7, 7, -8, -8, -8]),
        (Steps(10.0, 0.1, -128, 127), [-7.250000476837158], [-73]),  # divided by fp32(0.1) it would be -72
        (Steps(1.5, 2 / 3, 0, 15), [1 / 3, 0.9999999, 1.0, -1.0], [0, 1, 2, 0]),  # 1.4999999 and 1.5
        (Signs(), [0.0, -0.0, 1e-45, -1e-45, np.inf, -np.inf], [1, 1, 1, -1, 1, -1]),
        (Signs(0.5), [0.5, -0.5, 0.50000006, -0.50000006, 0.0, np.inf, -np.inf], [0, 0, 1, -1, 0, 1, -1]),
        (Signs(0.1), [np.float32(0.1), -np.float32(0.1), np.nextafter(np.float32(0.1), np.float32(1))], [0, 0, 1]),
    ],
)
def test_codes_by_hand(grid: Steps | Signs, given: list[float], expected: list[int]) -> None:
    found = codes_of(torch.tensor(given, dtype=torch.float32), grid)
    assert found.dtype == torch.float32
    assert found.tolist() == expected


def test_numbers_of_codes_are_one_product_in_fp32() -> None:
    scale = float(np.float32(0.1))
    flat = Reshape((5,), sources=(0,), name="flat")
    coded = Quantize(Steps(10.0, scale, -3, 200), sources=(1,), name="codes")
    x = torch.tensor([-9.0, 0.0, 0.1, 0.74, 99.0]).reshape(1, 1, 1, 5)
    found = run(program(flat, coded, Decode(sources=(2,), name="numbers"), picture=(1, 1, 5)), x)
    assert found.tolist() == [[float(np.float32(code) * np.float32(scale)) for code in (-3, 0, 1, 7, 200)]]


def test_codes_are_seen_as_whole_numbers() -> None:
    seen: dict[int, Tensor] = {}
    matrix = Matrix(codes([[1, 1, 1, 1]]), np.array([0.5], np.float32))
    flat, coded = Reshape((4,), sources=(0,), name="flat"), Quantize(Steps(2.0, 0.5, 0, 3), sources=(1,), name="codes")
    x = torch.tensor([0.1, 0.6, 0.9, 5.0]).reshape(1, 1, 2, 2)
    found = run(program(flat, coded, Linear(matrix, sources=(2,), name="fc"), picture=(1, 2, 2)), x, seen.__setitem__)
    assert [value.tolist() for value in (seen[2], seen[3])] == [[[0, 1, 2, 3]], [[3]]]
    assert [*seen] == [1, 2, 3]
    assert found is seen[3]
