"""Settings that operations refuse, and their messages; sums are allowed up to int32's limit."""

from __future__ import annotations

import re
from typing import Any

import numpy as np
import pytest

from deploy.operations.base import FARTHEST, Codes, Matrix, Operation, Shape, Value
from deploy.operations.functions import Combine, Function, Product, Reduce, Slopes, Softmax, Standardize
from deploy.operations.layers import Affine, Convolution, Decode, Linear, Quantize, Transposed
from deploy.operations.places import Concatenate, Pad, Permute, Reshape, Slice, Take, Upsample
from deploy.operations.pools import AdaptivePool, AveragePool, MaxPool
from models.layers.quantizers.base import Signs, Steps

BYTES = Steps(255.0, 1 / 255, 0, 255)
NAN = float("nan")


def zeros(*shape: int) -> np.ndarray:
    return np.zeros(shape, np.float32)


def integers(*numbers: int) -> np.ndarray:
    return np.array(numbers, np.int32)


def codes(out: int, taps: int, value: int = 255) -> Codes:
    return Codes(np.full((out, taps), value, np.int16), 256, 2, integers(-255))


WEIGHT = {"weight": zeros(4, 3, 2, 2), "shift": zeros(3)}
CONV = {"matrix": Matrix(zeros(4, 3, 3, 3))}
POOL = {"kernel": (3, 3), "stride": (2, 2)}


@pytest.mark.parametrize(
    ("kind", "settings", "shape", "error"),
    [
        (Convolution, CONV, (3, 8), "a window over a value of shape (3, 8), not (channels, rows, columns)"),
        (Convolution, {"matrix": Matrix(zeros(4, 3))}, (3, 8, 8), "a weight of shape (4, 3)"),
        (Convolution, CONV, (4, 8, 8), "a weight of shape (4, 3, 3, 3) in 1 groups on 4 channels"),
        (Convolution, {**CONV, "groups": 3}, (9, 8, 8), "a weight of shape (4, 3, 3, 3) in 3 groups on 9 channels"),
        (Convolution, {**CONV, "groups": 2}, (3, 8, 8), "in 2 groups on 3 channels"),
        (Convolution, {**CONV, "groups": 0}, (3, 8, 8), f"its groups is 0, not from 1 to {FARTHEST}"),
        (Convolution, {**CONV, "stride": (1, 0)}, (3, 8, 8), f"its stride is (1, 0), not from 1 to {FARTHEST}"),
        (Convolution, {**CONV, "stride": (FARTHEST + 1, 1)}, (3, 8, 8), f"its stride is ({FARTHEST + 1}, 1)"),
        (Convolution, {**CONV, "dilation": (0, 1)}, (3, 8, 8), "its dilation is (0, 1)"),
        (Convolution, {**CONV, "padding": (0, 0, -1, 0)}, (3, 8, 8), "its padding is (0, 0, -1, 0), not from 0"),
        (Convolution, CONV, (3, 8, 2), "a window of (3, 3) on a value of shape (3, 8, 2)"),
        (Convolution, {**CONV, "dilation": (4, 1)}, (3, 8, 8), "a window of (3, 3) on a value of shape (3, 8, 8)"),
        (Transposed, WEIGHT, (3, 8, 8), "a weight of shape (4, 3, 2, 2) in 1 groups on a value of shape (3, 8, 8)"),
        (Transposed, {**WEIGHT, "groups": 3}, (4, 8, 8), "in 3 groups on a value of shape (4, 8, 8)"),
        (Transposed, {**WEIGHT, "groups": 2}, (4, 8, 8), "its shift has shape (3,), not (6,)"),
        (Transposed, {**WEIGHT, "stride": (0, 1)}, (4, 8, 8), "its stride is (0, 1)"),
        (Transposed, {**WEIGHT, "padding": (0, -1)}, (4, 8, 8), "its padding is (0, -1)"),
        (Transposed, {**WEIGHT, "padding": (5, 0)}, (4, 8, 8), "a transposed window that gives -1x9"),
        (Transposed, {**WEIGHT, "stride": (2, 2), "more": (0, 2)}, (4, 1, 1), "a transposed window that gives 2x4"),
        (Linear, {"matrix": Matrix(zeros(4, 3))}, (4,), "a weight of shape (4, 3) on a value of shape (4,)"),
        (Linear, {"matrix": Matrix(zeros(4, 3))}, (), "a weight of shape (4, 3) on a value of shape ()"),
        (Linear, CONV, (3,), "a weight of shape (4, 3, 3, 3) on a value of shape (3,)"),
        (Linear, {"matrix": Matrix(zeros(4, 3), scale=zeros(3))}, (3,), "its scale has shape (3,), not (4,)"),
        (Linear, {"matrix": Matrix(zeros(4, 3), shift=zeros(1))}, (3,), "its shift has shape (1,), not (4,)"),
        (Linear, {"matrix": Matrix(zeros(4, 3), bias=integers(1, 2))}, (3,), "its bias has shape (2,), not (4,)"),
        (Affine, {"multiplier": zeros(3), "axis": 1}, (3, 8), "numbers of shape (3,) along axis 1 of a value"),
        (Affine, {"shift": zeros(3, 1)}, (3, 8), "numbers of shape (3, 1) along axis 0"),
        (Affine, {"shift": zeros(3), "axis": 2}, (3, 8), "axis 2 of a value of shape (3, 8)"),
        (Affine, {"shift": zeros(1), "axis": -1}, (3, 8), "axis -1 of a value of shape (3, 8)"),
        (Decode, {}, (3,), "its source is not in codes on steps"),
        (Quantize, {"grid": Steps(1.0, 1.0, 3, 3)}, (3,), "a grid from 3 to 3 in steps of 1.0"),
        (Quantize, {"grid": Steps(1.0, 1.0, 0, 2**16)}, (3,), f"its high is {2**16}"),
        (Quantize, {"grid": Steps(0.0, 1.0, 0, 255)}, (3,), "a grid from 0 to 255"),
        (Quantize, {"grid": Steps(1.0, NAN, 0, 255)}, (3,), "a grid from 0 to 255 in steps of nan"),
        (Quantize, {"grid": Steps(float("inf"), 1.0, 0, 255)}, (3,), "a grid from 0 to 255"),
        (Quantize, {"grid": Signs(0.0)}, (3,), "codes at +-0.0"),
        (Function, {"kind": "clamp", "settings": (1.0,)}, (3,), "clamp with the settings (1.0,)"),
        (Function, {"kind": "clamp", "settings": (0.0, 1e300)}, (3,), "clamp with the settings (0.0, 1e+300)"),  # no fp32
        (Function, {"kind": "relu", "settings": (1.0,)}, (3,), "relu with the settings (1.0,)"),
        (Function, {"kind": "leaky_relu", "settings": (NAN,)}, (3,), "leaky_relu with the settings (nan,)"),
        (Slopes, {"slope": zeros(8)}, (3, 8), "slopes of shape (8,) on a value of shape (3, 8)"),
        (Slopes, {"slope": zeros(1)}, (), "axis 0 of a value of shape ()"),
        (Reduce, {"kind": "mean", "axes": ()}, (3, 8), "axes () of a value of shape (3, 8)"),
        (Reduce, {"kind": "mean", "axes": (2,)}, (3, 8), "axes (2,) of a value of shape (3, 8)"),
        (Reduce, {"kind": "mean", "axes": (1, 0)}, (3, 8), "axes (1, 0)"),
        (Reduce, {"kind": "mean", "axes": (-1,)}, (3, 8), "axes (-1,)"),
        (Standardize, {"axes": (0, 0), "eps": 1e-5}, (3, 8), "axes (0, 0)"),
        (Standardize, {"axes": (0,), "eps": 0.0}, (3, 8), "eps 0.0"),
        (Softmax, {"axis": 2}, (3, 8), "axis 2 of a value of shape (3, 8)"),
        (MaxPool, {**POOL, "stride": (0, 2)}, (3, 8, 8), "its stride is (0, 2)"),
        (MaxPool, {**POOL, "padding": (2, 0, 0, 0)}, (3, 8, 8), "a padding of (2, 0, 0, 0) around windows of (3, 3)"),
        (MaxPool, {**POOL, "kernel": (0, 3)}, (3, 8, 8), "its kernel is (0, 3)"),
        (MaxPool, POOL, (3, 8), "a window over a value of shape (3, 8)"),
        (AveragePool, {**POOL, "padding": (0, 0, 0, 2)}, (3, 8, 8), "a padding of (0, 0, 0, 2) around windows"),
        (AveragePool, {**POOL, "divisor": 0}, (3, 8, 8), "a mean over a count of 0"),
        (AveragePool, POOL, (3, 2, 2), "a window of (3, 3) on a value of shape (3, 2, 2)"),
        (AdaptivePool, {"kind": "max", "size": (0, 1)}, (3, 8, 8), "its size is (0, 1)"),
        (AdaptivePool, {"kind": "max", "size": (1, 1)}, (8, 8), "a pool of a value of shape (8, 8)"),
        (Slice, {"axis": 2, "start": 0, "stop": 1}, (3, 8), "axis 2 of a value of shape (3, 8)"),
        (Slice, {"axis": 1, "start": 3, "stop": 3}, (3, 8), "indices 3 to 3 in steps of 1 do not fit an axis of 8"),
        (Slice, {"axis": 1, "start": -1, "stop": 3}, (3, 8), "indices -1 to 3"),
        (Slice, {"axis": 1, "start": 0, "stop": 9}, (3, 8), "indices 0 to 9 in steps of 1 do not fit an axis of 8"),
        (Slice, {"axis": 1, "start": 0, "stop": 8, "step": 0}, (3, 8), "in steps of 0"),
        (Take, {"axis": 2, "places": np.array([0], np.int32)}, (3, 8), "axis 2 of a value of shape (3, 8)"),
        (Take, {"axis": 1, "places": np.array([0, 8], np.int32)}, (3, 8), "places [0, 8] are not a list of places of an axis of 8"),
        (Take, {"axis": 1, "places": np.array([-1], np.int32)}, (3, 8), "places [-1] are not a list"),
        (Take, {"axis": 1, "places": np.zeros(0, np.int32)}, (3, 8), "places [] are not a list"),
        (Take, {"axis": 1, "places": np.zeros((2, 2), np.int32)}, (3, 8), "places [[0, 0], [0, 0]] are not a list"),
        (Pad, {"sides": (1, 1, 1, 1)}, (8, 8), "a padding of 0.0 around a value of shape (8, 8)"),
        (Pad, {"sides": (8, 0, 0, 0), "kind": "reflect"}, (1, 8, 9), "reflect padding of (8, 0, 0, 0) around"),
        (Pad, {"sides": (0, 0, 0, 9), "kind": "reflect"}, (1, 8, 9), "reflect padding of (0, 0, 0, 9)"),
        (Pad, {"sides": (0, 9, 0, 0), "kind": "circular"}, (1, 8, 9), "circular padding of (0, 9, 0, 0)"),
        (Pad, {"sides": (-1, 0, 0, 0), "kind": "replicate"}, (1, 8, 9), "its sides is (-1, 0, 0, 0), not from 0"),
        (Pad, {"sides": (0,) * 4, "kind": "replicate", "channels": (0, 1)}, (1, 8, 9), "replicate padding of channels"),
        (Pad, {"sides": (0,) * 4, "channels": (0, -1)}, (2, 8, 9), "its channels is (0, -1)"),
        (Pad, {"sides": (-4, -4, 0, 0)}, (1, 8, 9), "a padding of (-4, -4, 0, 0) that leaves nothing"),
        (Pad, {"sides": (-9, 5, 0, 0)}, (1, 8, 9), "a padding of (-9, 5, 0, 0)"),  # one side cuts more rows than exist
        (Pad, {"sides": (0,) * 4, "fill": NAN}, (1, 8, 9), "a padding of nan"),
        (Pad, {"sides": (1,) * 4, "fill": 1e300}, (1, 8, 9), "a padding of 1e+300"),  # no fp32
        (Reshape, {"shape": (5, 5)}, (3, 8), "a value of shape (3, 8) as one of shape (5, 5)"),
        (Reshape, {"shape": (-1, 8)}, (3, 8), "its shape is (-1, 8)"),
        (Permute, {"axes": (0, 0)}, (3, 8), "axes (0, 0) of a value of shape (3, 8)"),
        (Permute, {"axes": (1, 0)}, (3, 8, 8), "axes (1, 0) of a value of shape (3, 8, 8)"),
        (Upsample, {"kind": "nearest", "size": (0, 1)}, (3, 8, 8), "its size is (0, 1)"),
        (Upsample, {"kind": "nearest", "size": (1, 1)}, (8, 8), "an upsampling of a value of shape (8, 8)"),
    ],
)  # fmt: skip
def test_settings_that_cannot_be(kind: type[Operation], settings: dict[str, Any], shape: Shape, error: str) -> None:
    with pytest.raises(ValueError, match=re.escape(error)):
        kind(**settings, sources=(0,), name="it").value(Value(shape))


@pytest.mark.parametrize("shapes", [((3, 8), (3, 7)), ((3, 8), (8,)), ((2, 1), (3, 8))], ids=str)
def test_values_that_do_not_go_together(shapes: tuple[Shape, Shape]) -> None:
    with pytest.raises(ValueError, match=re.escape(f"values of shapes {shapes[0]} and {shapes[1]}")):
        Combine("add", sources=(0, 0), name="it").value(*map(Value, shapes))


@pytest.mark.parametrize(
    "shapes", [((3, 8), (3, 8)), ((8,), (8,)), ((1, 3, 8), (8, 3)), ((2, 3, 8), (3, 8, 3))], ids=str
)
def test_values_that_have_no_product(shapes: tuple[Shape, Shape]) -> None:
    with pytest.raises(ValueError, match=re.escape(f"values of shapes {shapes[0]} and {shapes[1]}")):
        Product(sources=(0, 0), name="it").value(*map(Value, shapes))


@pytest.mark.parametrize("shapes", [((3, 8), (3, 7)), ((3, 8), (3,)), ((3, 8), (3, 8, 1))], ids=str)
def test_values_that_do_not_stand_behind_each_other(shapes: tuple[Shape, Shape]) -> None:
    with pytest.raises(ValueError, match=re.escape(f"values of shapes {shapes[0]}, {shapes[1]} along axis 0")):
        Concatenate(0, sources=(0, 0), name="it").value(*map(Value, shapes))


def linear(matrix: Matrix, grid: Steps | Signs | None) -> Value:
    return Linear(matrix, sources=(0,), name="it").value(Value((matrix.weight.shape[1],), grid))


def test_sums_are_allowed_as_far_as_int32_goes() -> None:
    """33,025 products of 255 and 255 sum to 2,147,450,625, which is 33,023 less than 2^31."""
    assert linear(Matrix(codes(1, 33_025)), BYTES).shape == (1,)
    assert linear(Matrix(codes(1, 33_025, -255), bias=integers(-33_022)), BYTES).shape == (1,)
    with pytest.raises(ValueError, match="its sums reach 2,147,515,650, and int32 holds less than 2,147,483,648"):
        linear(Matrix(codes(1, 33_026)), BYTES)
    for bias in (33_023, -33_023, -(2**31)):
        with pytest.raises(ValueError, match="its sums reach"):
            linear(Matrix(codes(1, 33_025), bias=integers(bias)), BYTES)
    assert linear(Matrix(codes(1, 33_026)), Signs()).shape == (1,)
    assert linear(Matrix(codes(1, 33_026)), None).shape == (1,)  # no integer sums


def test_the_longest_row_counts() -> None:
    weight = codes(3, 33_026, 1)
    weight.values[1] = 255
    with pytest.raises(ValueError, match="2,147,515,650"):
        linear(Matrix(weight), BYTES)


@pytest.mark.parametrize("matrix", [Matrix(codes(2, 3), bias=integers(0, 1)), Matrix(zeros(2, 3), bias=integers(0, 1))])
def test_a_bias_on_a_grid_needs_whole_sums(matrix: Matrix) -> None:
    grid = None if isinstance(matrix.weight, Codes) else BYTES
    with pytest.raises(ValueError, match="it has an integer bias, but its sums are not integers"):
        linear(matrix, grid)


def test_codes_are_padded_with_0_alone() -> None:
    with pytest.raises(ValueError, match="codes padded with 1"):
        Pad((1, 1, 1, 1), fill=1.0, sources=(0,), name="it").value(Value((3, 8, 8), BYTES))
