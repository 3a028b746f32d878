"""A program of every operation as JSON and rows: read back, it computes the same bits, and nothing is stored twice."""

from __future__ import annotations

import json
import math
from collections.abc import Callable

import numpy as np
import pytest
import torch

from deploy import description
from deploy.file import Rows
from deploy.operations.base import Codes, Matrix, Operation
from deploy.operations.functions import Combine, Constant, Function, Product, Reduce, Slopes, Softmax, Standardize
from deploy.operations.layers import Affine, Convolution, Decode, Linear, Quantize, Transposed
from deploy.operations.places import Concatenate, Pad, Permute, Reshape, Slice, Take, Upsample
from deploy.operations.pools import AdaptivePool, AveragePool, MaxPool
from deploy.program import Program
from deploy.reference.run import run
from models.layers.quantizers.base import Signs, Steps

DRAW = np.random.default_rng(0)


def numbers(*shape: int) -> np.ndarray:
    return DRAW.normal(size=shape).astype(np.float32)


def integers(*given: int) -> np.ndarray:
    return np.array(given, np.int32)


def codes(shape: tuple[int, ...], levels: int, step: int, low: np.ndarray) -> Codes:
    stored = DRAW.integers(0, levels, shape)
    lowest = low.reshape(-1, *(1,) * (len(shape) - 1))
    return Codes((lowest + step * stored).astype(np.int16), levels, step, low)


WIDE = codes((4, 3, 3, 3), 16, 2, integers(-15, -15, -20, 0))
"""A lowest code for each row."""
TERNARY = codes((3, 5), 3, 64, integers(-64))
SHIFT = numbers(4)
STEPS: list[tuple[type[Operation], tuple, dict]] = [
    (Quantize, (Steps(0.7, 1 / 0.7, -3, 12),), {}),
    (Pad, ((1, 1, 0, 2),), {}),
    (Convolution, (Matrix(WIDE, numbers(4), integers(-9, 0, 5, 2**20), SHIFT), (2, 2), (0, 0, 1, 0)), {}),
    (Affine, (numbers(4), numbers(1)), {}),
    (Function, ("clamp", (-math.inf, 60.0)), {}),
    (Slopes, (numbers(4),), {}),
    (MaxPool, ((2, 2), (1, 1)), {}),
    (AveragePool, ((2, 2), (1, 1), (1, 0, 1, 0)), {"counts_padding": False}),
    (Combine, ("sub",), {"sources": (7, 8)}),
    (Transposed, (numbers(4, 2, 2, 2), numbers(2), (2, 2)), {}),
    (Take, (2, integers(0, 2, 2, 1, 3)), {}),
    (Upsample, ("bilinear", (4, 4)), {}),
    (Product, (), {"sources": (12, 12)}),
    (AdaptivePool, ("mean", (2, 2)), {}),
    (Permute, ((1, 2, 0),), {}),
    (Standardize, ((2,), 1e-5), {}),
    (Softmax, (2,), {}),
    (Constant, (numbers(2, 2, 2),), {"sources": ()}),
    (Concatenate, (0,), {"sources": (17, 18)}),
    (Slice, (0, 1, 4, 2), {}),
    (Reduce, ("max", (1, 2)), {}),
    (Reshape, ((2,),), {}),
    (Quantize, (Steps(9.0, 0.1, 0, 15),), {}),
    (Decode, (), {}),
    (Linear, (Matrix(numbers(5, 2), shift=numbers(5)),), {}),
    (Function, ("gelu",), {}),
    (Quantize, (Signs(0.05),), {}),
    (Linear, (Matrix(TERNARY),), {}),
]


def program(steps: list[tuple[type[Operation], tuple, dict]] = STEPS, picture: tuple[int, ...] = (3, 8, 8)) -> Program:
    """Return a program in which each step reads the one before, unless it names other sources."""
    made = [
        kind(*given, **{"sources": (number,), "name": f"layer{number}.é", **more})
        for number, (kind, given, more) in enumerate(steps)
    ]
    return Program(tuple(made), picture, (0.25, 0.5, 0.75)[: picture[0]], (0.25, 1 / 3, 1.0)[: picture[0]])


def back(given: Program) -> Program:
    """Write a program as text and read it back."""
    said, rows = description.written(given)
    words = json.dumps(said, allow_nan=False)
    return description.read(json.loads(words), Rows(*(row.copy() for row in rows)))


def test_it_holds_every_operation() -> None:
    assert {kind for kind, *_ in STEPS} == set(description.OPERATIONS.values())


def test_what_is_read_back_computes_the_same_bits() -> None:
    given = program()
    found, x = back(given), torch.randn(5, 3, 8, 8)
    values: list[list[torch.Tensor]] = [[], []]
    for which, each in enumerate((given, found)):
        run(each, x, lambda _, value, which=which: values[which].append(value))
    assert all(map(torch.equal, *values))
    assert all(len(value.unique()) > 1 for value in values[0])
    assert found.values == given.values
    assert (found.mean, found.std) == (given.mean, given.std)


def test_what_is_read_back_is_written_the_same() -> None:
    said, rows = description.written(program())
    again, others = description.written(back(program()))
    assert again == said
    assert [row.tobytes() for row in others] == [row.tobytes() for row in rows]
    assert [row.dtype for row in rows] == [np.uint8, np.float32, np.int32]


def test_defaults_are_left_out() -> None:
    pad = (Pad, ((0, 0, 1, 0),), {"sources": (0,)})
    said, _ = description.written(program([(Function, ("relu",), {}), pad, (Concatenate, (2,), {"sources": (1, 2)})]))
    assert said == {
        "picture": [3, 8, 8],
        "mean": [0.25, 0.5, 0.75],
        "std": [0.25, 1 / 3, 1.0],
        "operations": [
            {"op": "Function", "name": "layer0.é", "kind": "relu"},
            {"op": "Pad", "name": "layer1.é", "sides": [0, 0, 1, 0], "sources": [0]},
            {"op": "Concatenate", "name": "layer2.é", "axis": 2, "sources": [1, 2]},
        ],
    }


def test_rows_by_hand() -> None:
    """A byte holds four codes of 4 levels; the next array begins in the next byte."""
    first = Codes(np.array([[-3, 3, 1]], np.int16), 4, 2, integers(-3))
    second = Codes(np.array([[0], [7]], np.int16), 4, 1, integers(-1, 4))
    matrices = (Matrix(first, bias=integers(5)), Matrix(second, scale=np.array([1.5, -2], np.float32)))
    coded = (Quantize, (Signs(),), {})
    said, rows = description.written(program([coded, (Linear, matrices[:1], {}), coded, (Linear, matrices[1:], {})], (1, 1, 3)))  # fmt: skip
    assert said["operations"][0]["grid"] == [None]
    assert said["operations"][1]["matrix"] == {
        "weight": {"at": [0, 1, 3], "levels": 4, "step": 2, "low": -3},
        "bias": [0, 1],
    }
    assert said["operations"][3]["matrix"] == {
        "weight": {"at": [1, 2, 1], "levels": 4, "step": 1, "low": [1, 2]},
        "scale": [0, 2],
    }
    assert [row.tolist() for row in rows] == [[0 | 3 << 2 | 2 << 4, 1 | 3 << 2], [1.5, -2], [5, -1, 4]]


def linears(*matrices: Matrix) -> Program:
    """Return linear layers on the signs of a row of three pixels, and their concatenated results. The first is operation 1."""
    layers = [Linear(matrix, sources=(1,), name=f"fc{number}") for number, matrix in enumerate(matrices)]
    joined = Concatenate(2, sources=tuple(range(2, len(matrices) + 2)), name="all")
    return Program((Quantize(Signs(), sources=(0,), name="signs"), *layers, joined), (1, 1, 3), (0.5,), (0.25,))


@pytest.mark.parametrize("again", [lambda array: array, np.copy], ids=["same", "equal"])
def test_equal_arrays_are_stored_once(again: Callable[[np.ndarray], np.ndarray]) -> None:
    weight, shift = numbers(3, 3), numbers(3)
    given = linears(Matrix(weight, shift=shift), Matrix(again(weight), shift=again(shift)))
    said, rows = description.written(given)
    assert rows.numbers.tolist() == [*weight.reshape(-1).tolist(), *shift.tolist()]
    assert said["operations"][1]["matrix"] == said["operations"][2]["matrix"] == {"weight": [0, 3, 3], "shift": [9, 3]}
    _, one, other, _ = back(given).operations
    assert one.matrix.weight is other.matrix.weight  # in memory, too
    assert one.matrix.shift is other.matrix.shift


def test_equal_codes_are_stored_once() -> None:
    """Equal lowest codes are stored once, too, even if a bias holds the same integers."""
    low, values = (-3, -1), [[-3, 3, 1], [-1, 1, 5]]
    matrices = [Matrix(Codes(np.array(values, np.int16), 4, 2, integers(*low)), bias=integers(*low)) for _ in range(2)]
    said, rows = description.written(linears(*matrices))
    assert [row.tolist() for row in rows] == [[0 | 3 << 2 | 2 << 4 | 0 << 6, 1 | 3 << 2], [], list(low)]
    assert said["operations"][1]["matrix"] == said["operations"][2]["matrix"]
    _, one, other, _ = back(linears(*matrices)).operations
    assert one.matrix.weight is other.matrix.weight
    assert one.matrix.weight.values.tolist() == values


def test_what_differs_in_a_bit_or_in_shape_is_stored_apart() -> None:
    zeros = np.zeros((1, 3), np.float32)
    given = linears(Matrix(zeros), Matrix(-zeros), Matrix(numbers(3, 3), shift=zeros[0]))
    _, rows = description.written(given)
    assert len(rows.numbers) == 3 + 3 + 9 + 3
    for one, other in zip(given.operations[1:4], back(given).operations[1:4], strict=True):
        assert other.matrix.weight.tobytes() == one.matrix.weight.tobytes()
    assert back(given).operations[3].matrix.shift.tolist() == [0, 0, 0]


def test_codes_are_shared_by_what_they_mean() -> None:
    """Equal numbers with different levels are stored separately."""
    values = np.array([[0, 1, 1]], np.int16)
    given = linears(*(Matrix(Codes(values, levels, 1, integers(0))) for levels in (2, 4, 2)))
    _, rows = description.written(given)
    assert rows.codes.tolist() == [0b110, 0b10100]
    for layer in back(given).operations[1:4]:
        assert layer.matrix.weight.values.tolist() == values.tolist()


def test_codes_of_the_same_bytes_are_not_mixed_up() -> None:
    """The byte 0b110 = 0 + 2 * 3 has a different meaning each time; only the first occurs twice."""
    meant = [
        ([[0, 1, 1]], 2, 1, 0),
        ([[0, 2, 2]], 2, 2, 0),
        ([[-1, 0, 0]], 2, 1, -1),
        ([[2, 1, 0]], 4, 1, 0),
        ([[0, 2, 0]], 3, 1, 0),
        ([[0, 1, 1]], 2, 1, 0),
    ]
    given = linears(*(Matrix(Codes(np.array(v, np.int16), n, step, integers(low))) for v, n, step, low in meant))
    _, rows = description.written(given)
    assert rows.codes.tolist() == [0b110] * 5
    weights = [layer.matrix.weight for layer in back(given).operations[1:-1]]
    assert [(w.values.tolist(), w.levels, w.step, w.low.item()) for w in weights] == meant


@pytest.mark.parametrize("axes", [0, 1, 8])
def test_constants_of_no_axes_and_of_many(axes: int) -> None:
    given = program([(Constant, (np.full((1,) * axes, 0.5, np.float32),), {"sources": ()})])
    assert description.written(given)[0]["operations"][0]["numbers"] == [0] + [1] * axes
    found = back(given).operations[0].numbers
    assert (found.shape, found.item()) == ((1,) * axes, 0.5)


@pytest.mark.parametrize("settings", [(-math.inf, 0.5), (0.1, math.inf), (-math.inf, math.inf)])
def test_infinities_of_a_clamp_survive(settings: tuple[float, float]) -> None:
    found = back(program([(Function, ("clamp", settings), {})])).operations[0]
    assert found.settings == settings
