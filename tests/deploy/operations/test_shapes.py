"""The shape of each operation's result, by hand; a new operation needs a row here."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import pytest

from deploy import description
from deploy.operations.base import Codes, Matrix, Operation, Shape, Value
from deploy.operations.functions import (
    Combine,
    Constant,
    Function,
    Product,
    Reduce,
    Slopes,
    Softmax,
    Standardize,
)  # fmt: skip
from deploy.operations.layers import Affine, Convolution, Decode, Linear, Quantize, Transposed
from deploy.operations.places import Concatenate, Pad, Permute, Reshape, Slice, Take, Upsample
from deploy.operations.pools import AdaptivePool, AveragePool, MaxPool
from models.layers.quantizers.base import Signs, Steps


def zeros(*shape: int) -> np.ndarray:
    return np.zeros(shape, np.float32)


def matrix(*shape: int) -> Matrix:
    return Matrix(zeros(*shape))


CASES: list[tuple[type[Operation], dict[str, Any], Sequence[Shape | Value], Shape]] = [
    (Quantize, {"grid": Steps(255.0, 1 / 255, 0, 255)}, [(3, 8, 5)], (3, 8, 5)),
    (Quantize, {"grid": Signs()}, [(7,)], (7,)),
    (Decode, {}, [Value((3, 8, 5), Steps(255.0, 1 / 255, 0, 255))], (3, 8, 5)),
    (Convolution, {"matrix": matrix(4, 3, 3, 2)}, [(3, 8, 5)], (4, 6, 4)),
    (Convolution, {"matrix": matrix(4, 3, 3, 2), "stride": (2, 3)}, [(3, 8, 5)], (4, 3, 2)),  # 5 // 2 + 1, 3 // 3 + 1
    (Convolution, {"matrix": matrix(4, 3, 3, 2), "padding": (1, 0, 0, 5)}, [(3, 8, 5)], (4, 7, 9)),
    (Convolution, {"matrix": matrix(4, 3, 3, 2), "padding": (0, 4, 2, 0)}, [(3, 8, 5)], (4, 10, 6)),
    (Convolution, {"matrix": matrix(4, 3, 3, 2), "dilation": (3, 4)}, [(3, 8, 5)], (4, 2, 1)),  # windows of 7x5
    (Convolution, {"matrix": matrix(6, 2, 1, 1), "groups": 3}, [(6, 2, 2)], (6, 2, 2)),
    (Convolution, {"matrix": matrix(12, 1, 2, 2), "groups": 6}, [(6, 2, 2)], (12, 1, 1)),
    (
        Convolution,
        {"matrix": matrix(1, 1, 3, 3), "stride": (2, 2), "padding": (1, 2, 0, 1), "dilation": (2, 1)},
        [(1, 6, 7)],
        (1, 3, 3),  # (9 - 5) // 2 + 1, (8 - 3) // 2 + 1
    ),
    (Transposed, {"weight": zeros(3, 5, 2, 4), "shift": zeros(5)}, [(3, 8, 5)], (5, 9, 8)),
    (
        Transposed,
        {"weight": zeros(4, 3, 3, 3), "shift": zeros(6), "stride": (2, 3), "padding": (1, 0), "more": (1, 2), "groups": 2},
        [(4, 5, 2)],
        (6, 10, 8),  # 4 * 2 - 2 + 2 + 1 + 1, 1 * 3 + 2 + 2 + 1
    ),
    (Transposed, {"weight": zeros(1, 1, 2, 2), "shift": zeros(1), "dilation": (3, 1)}, [(1, 2, 2)], (1, 5, 3)),
    (Linear, {"matrix": matrix(10, 6)}, [(6,)], (10,)),
    (Linear, {"matrix": matrix(10, 6)}, [(4, 5, 6)], (4, 5, 10)),
    (Affine, {"multiplier": zeros(3), "shift": zeros(1)}, [(3, 8, 5)], (3, 8, 5)),
    (Affine, {"shift": zeros(5), "axis": 2}, [(3, 8, 5)], (3, 8, 5)),
    (Function, {"kind": "relu"}, [(3, 8)], (3, 8)),
    (Function, {"kind": "clamp", "settings": (0.0, float("inf"))}, [(3,)], (3,)),
    (Slopes, {"slope": zeros(3)}, [(3, 8, 5)], (3, 8, 5)),
    (Slopes, {"slope": zeros(1)}, [(3, 8, 5)], (3, 8, 5)),
    (Combine, {"kind": "add"}, [(3, 8, 5), (3, 8, 5)], (3, 8, 5)),
    (Combine, {"kind": "mul"}, [(3, 1, 5), (1, 8, 1)], (3, 8, 5)),
    (Combine, {"kind": "max"}, [(), ()], ()),
    (Product, {}, [(3, 8, 5), (3, 5, 7)], (3, 8, 7)),
    (Product, {}, [(1, 3, 8, 5), (2, 1, 5, 7)], (2, 3, 8, 7)),
    (Product, {}, [(8, 5), (5, 1)], (8, 1)),
    (Constant, {"numbers": zeros(2, 3)}, [], (2, 3)),
    (Reduce, {"kind": "mean", "axes": (1, 2)}, [(3, 8, 5)], (3, 1, 1)),
    (Reduce, {"kind": "max", "axes": (0,)}, [(3, 8, 5)], (1, 8, 5)),
    (Standardize, {"axes": (0, 2), "eps": 1e-5}, [(3, 8, 5)], (3, 8, 5)),
    (Softmax, {"axis": 2}, [(3, 8, 5)], (3, 8, 5)),
    (MaxPool, {"kernel": (3, 2), "stride": (2, 2)}, [(3, 8, 5)], (3, 3, 2)),
    (MaxPool, {"kernel": (3, 2), "stride": (2, 2), "ceil": True}, [(3, 8, 5)], (3, 4, 3)),
    (MaxPool, {"kernel": (2, 2), "stride": (2, 2), "padding": (1, 0, 0, 1)}, [(3, 8, 5)], (3, 4, 3)),
    (MaxPool, {"kernel": (3, 3), "stride": (1, 1), "dilation": (2, 1)}, [(3, 8, 5)], (3, 4, 3)),
    (MaxPool, {"kernel": (2, 2), "stride": (3, 3), "padding": (1, 1, 1, 1), "ceil": True}, [(3, 5, 4)], (3, 2, 2)),
    (AveragePool, {"kernel": (3, 2), "stride": (2, 2)}, [(3, 8, 5)], (3, 3, 2)),
    (AveragePool, {"kernel": (3, 2), "stride": (2, 2), "ceil": True, "divisor": 5}, [(3, 8, 5)], (3, 4, 3)),
    (AveragePool, {"kernel": (2, 2), "stride": (3, 3), "padding": (1, 1, 1, 1), "ceil": True}, [(3, 5, 4)], (3, 2, 2)),
    (AdaptivePool, {"kind": "mean", "size": (1, 1)}, [(3, 8, 5)], (3, 1, 1)),
    (AdaptivePool, {"kind": "max", "size": (3, 7)}, [(3, 8, 5)], (3, 3, 7)),
    (Concatenate, {"axis": 0}, [(3, 8), (1, 8), (3, 8)], (7, 8)),
    (Concatenate, {"axis": 1}, [(3, 8)], (3, 8)),
    (Slice, {"axis": 1, "start": 1, "stop": 8, "step": 3}, [(3, 8, 5)], (3, 3, 5)),  # 1, 4, 7
    (Slice, {"axis": 0, "start": 2, "stop": 3}, [(3, 8, 5)], (1, 8, 5)),
    (Take, {"axis": 1, "places": np.array([7, 0, 0], np.int32)}, [(3, 8, 5)], (3, 3, 5)),
    (Pad, {"sides": (1, 2, 3, 4)}, [(3, 8, 5)], (3, 11, 12)),
    (Pad, {"sides": (-1, -2, 0, 3), "channels": (2, 4)}, [(3, 8, 5)], (9, 5, 8)),
    (Pad, {"sides": (7, 0, 0, 4), "kind": "reflect"}, [(3, 8, 5)], (3, 15, 9)),
    (Pad, {"sides": (8, 0, 0, 5), "kind": "circular"}, [(3, 8, 5)], (3, 16, 10)),
    (Pad, {"sides": (0, 20, 0, 0), "kind": "replicate"}, [(3, 8, 5)], (3, 28, 5)),
    (Reshape, {"shape": (5, 24)}, [(3, 8, 5)], (5, 24)),
    (Reshape, {"shape": ()}, [(1, 1)], ()),
    (Permute, {"axes": (2, 0, 1)}, [(3, 8, 5)], (5, 3, 8)),
    (Upsample, {"kind": "nearest", "size": (16, 3)}, [(3, 8, 5)], (3, 16, 3)),
    (Upsample, {"kind": "bilinear", "size": (1, 9), "align_corners": True}, [(3, 8, 5)], (3, 1, 9)),
]  # fmt: skip


@pytest.mark.parametrize(("kind", "settings", "given", "expected"), CASES)
def test_shapes_by_hand(
    kind: type[Operation], settings: dict[str, Any], given: Sequence[Shape | Value], expected: Shape
) -> None:
    operation = kind(**settings, sources=tuple(range(len(given))), name="it")
    found = operation.value(*(each if isinstance(each, Value) else Value(each) for each in given))
    assert found.shape == expected
    assert found.grid == settings.get("grid")


def test_every_operation_has_a_row() -> None:
    assert {kind for kind, *_ in CASES} == set(description.OPERATIONS.values())


def test_codes_pass_through_a_padding_and_end_at_a_layer() -> None:
    codes = Value((3, 4, 4), Steps(1.0, 1.0, -8, 7))
    assert Pad((1, 1, 1, 1), sources=(0,), name="it").value(codes) == Value((3, 6, 6), codes.grid)
    weight = Codes(np.ones((2, 3, 1, 1), np.int16), 2, 2, np.array([-1], np.int32))
    assert Convolution(Matrix(weight), sources=(0,), name="it").value(codes) == Value((2, 4, 4))


def test_the_largest_code_of_a_value() -> None:
    grids = (Steps(1.0, 1.0, -8, 7), Steps(1.0, 1.0, 0, 255), Signs(), Signs(0.5), None)
    assert [Value((1,), grid).largest for grid in grids] == [8, 255, 1, 1, 0]
