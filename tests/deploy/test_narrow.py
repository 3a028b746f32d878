"""Layers in int8 compute the same numbers as the layers they were made from, for any codes, signs and groups."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from hypothesis import given, settings, strategies as st
from torch.nn import functional as F

from deploy.narrow import Narrow, narrow
from deploy.operations.base import Codes, Matrix, Value
from models.layers.quantizers.base import Signs, Steps

GRIDS = (Steps(1.0, 1.0, 0, 255), Steps(1.0, 1.0, -128, 127), Steps(1.0, 1.0, -255, 0), Steps(1.0, 1.0, 0, 3), Signs(), Signs(0.5))  # fmt: skip
WEIGHTS = {"int8": (256, 1, -128), "odd": (256, 2, -255), "ternary": (3, 1, -1), "signs": (2, 2, -1), "zero points": (256, 1, None), "far": (4, 64, -512)}  # fmt: skip
"""Levels, step and lowest code; None: a different one for each row."""


def codes(draw: np.random.Generator, kind: str, shape: tuple[int, ...]) -> Codes:
    levels, step, lowest = WEIGHTS[kind]
    low = draw.integers(-255, 1, shape[0]) if lowest is None else np.array([lowest])
    values = step * draw.integers(0, levels, shape) + low.reshape(-1, *(1,) * (len(shape) - 1))
    return Codes(values.astype(np.int16), levels, step, low.astype(np.int32))


def layer(draw: np.random.Generator, kind: str, shape: tuple[int, ...]) -> Matrix:
    """Draw a layer with scales of both signs and 0; bias and shift may be missing."""
    rows = shape[0]
    scale = (draw.normal(size=rows) * draw.integers(0, 5, rows).clip(0, 1)).astype(np.float32)
    bias = draw.integers(-(2**20), 2**20, rows).astype(np.int32)
    parts = (scale, bias, draw.normal(size=rows).astype(np.float32))
    return Matrix(codes(draw, kind, shape), *(part if draw.random() < 0.8 else None for part in parts))


def computed(layer: Matrix | Narrow, weight: np.ndarray, x: np.ndarray, groups: int) -> np.ndarray:
    """Compute (sum + bias) * scale + shift in fp64, where every sum is exact."""
    parts = torch.from_numpy(x.astype(np.float64)), torch.from_numpy(weight.astype(np.float64))
    sums = (F.linear(*parts) if weight.ndim == 2 else F.conv2d(*parts, groups=groups)).numpy()

    def along(part: np.ndarray | None, without: float) -> np.ndarray:
        found = np.full(len(weight), without) if part is None else part.astype(np.float64)
        return found.reshape(-1, *(1,) * (weight.ndim - 2))

    return (sums + along(layer.bias, 0)) * along(layer.scale, 1) + along(layer.shift, 0)


def drawn(draw: np.random.Generator, grid: Steps | Signs, shape: tuple[int, ...]) -> np.ndarray:
    if isinstance(grid, Steps):
        return draw.integers(grid.low, grid.high + 1, shape)
    return draw.integers(-1, 2, shape) if grid.edge else draw.choice([-1, 1], shape)


def same(matrix: Matrix, grid: Steps | Signs, groups: int, draw: np.random.Generator) -> Narrow:
    """Return the narrow form after checking that it equals the layer on random codes."""
    wide = matrix.weight
    assert isinstance(wide, Codes)
    inputs = wide.shape[1] * groups
    found = narrow(matrix, groups, Value((inputs, 3, 3) if len(wide.shape) == 4 else (inputs,), grid))
    assert found is not None
    x = drawn(draw, grid, (4, inputs, 3, 3) if len(wide.shape) == 4 else (4, inputs))
    read = x if found.channels is None else x[:, found.channels]
    assert np.array_equal(computed(found, found.weight, read, groups), computed(matrix, wide.values, x, groups))
    assert (found.weight.dtype, found.scale.dtype, found.bias.dtype) == (np.int8, np.float32, np.int32)
    assert (found.scale > 0).all()
    return found


@settings(deadline=None, max_examples=150)
@given(
    kind=st.sampled_from(sorted(WEIGHTS)),
    grid=st.sampled_from(GRIDS),
    groups=st.sampled_from([1, 2, 6]),
    per=st.sampled_from([(1, 1), (3, 2), (2, 5)]),
    seed=st.integers(0, 2**32 - 1),
)
def test_convolutions_give_the_same(
    kind: str, grid: Steps | Signs, groups: int, per: tuple[int, int], seed: int
) -> None:
    """`per` is the outputs and inputs of a group; 6 groups of one input are depthwise."""
    draw = np.random.default_rng(seed)
    same(layer(draw, kind, (per[0] * groups, per[1], 2, 3)), grid, groups, draw)


@settings(deadline=None, max_examples=80)
@given(st.sampled_from(sorted(WEIGHTS)), st.sampled_from(GRIDS), st.integers(1, 9), st.integers(0, 2**32 - 1))
def test_linear_layers_give_the_same(kind: str, grid: Steps | Signs, inputs: int, seed: int) -> None:
    draw = np.random.default_rng(seed)
    same(layer(draw, kind, (5, inputs)), grid, 1, draw)


@pytest.mark.parametrize(
    ("weight", "scale", "expected", "channels"),
    [
        ([[127, -128]], 1, [[127, -128]], None),
        ([[255, 1]], 1, [[127, 1, 127, 1]], [0, 1, 0, 0]),  # 127 + 127 + 1 on the same channel
        ([[3, -255]], 1, [[3, -128, -127]], [0, 1, 1]),
        ([[128, 0]], 1, [[127, 0, 1]], [0, 1, 0]),
        ([[128, 0]], -1, [[-128, 0]], None),  # the other sign fits
        ([[128, 0]], 0, [[0, 0]], None),
        ([[2, 200, 201, 5]], 1, [[2, 127, 127, 5, 73, 74]], [0, 1, 2, 3, 1, 2]),
        ([[2, 200, 201, 202]], 1, [[2, 127, 127, 127, 0, 73, 74, 75]], [0, 1, 2, 3, 0, 1, 2, 3]),  # a whole copy
        ([[255, 2], [3, 200]], 1, [[127, 2, 127, 0, 1], [3, 127, 0, 73, 0]], [0, 1, 0, 1, 0]),
    ],
)
def test_weights_by_hand(weight: list, scale: float, expected: list, channels: list[int] | None) -> None:
    values = np.array(weight, np.int16)
    matrix = Matrix(Codes(values, 256, 1, np.array([0], np.int32)), np.full(len(values), scale, np.float32))
    found = narrow(matrix, 1, Value((values.shape[1],), GRIDS[0]))
    assert found is not None
    assert found.weight.tolist() == expected
    assert (None if found.channels is None else found.channels.tolist()) == channels
    assert found.scale.tolist() == [abs(scale) or 1] * len(values)


def test_groups_read_copies_of_their_own_channels() -> None:
    """Each group gets as many copies as the group that needs most; unneeded copies have weight 0."""
    values = np.array([[255, 0, 5], [1, 2, 255]], np.int16).reshape(2, 3, 1, 1)
    draw = np.random.default_rng(0)
    found = same(Matrix(Codes(values, 256, 1, np.array([0], np.int32))), GRIDS[0], 2, draw)
    assert found.channels is not None
    assert found.channels.reshape(2, -1).tolist() == [[0, 1, 2, 0, 0], [3, 4, 5, 5, 5]]
    assert found.weight.reshape(2, -1).tolist() == [[127, 0, 5, 127, 1], [1, 2, 127, 127, 1]]


def test_bias_and_sign_turn_together_and_nothing_given_changes() -> None:
    scale, bias = np.array([-2, 0, 3], np.float32), np.array([7, 8, -9], np.int32)
    matrix = Matrix(Codes(np.full((3, 1), 5, np.int16), 256, 1, np.array([0], np.int32)), scale, bias)
    found = narrow(matrix, 1, Value((1,), GRIDS[0]))
    assert found is not None
    assert found.weight.tolist() == [[-5], [0], [5]]
    assert found.bias.tolist() == [-7, 0, -9]
    assert found.scale.tolist() == [2, 1, 3]
    assert (scale.tolist(), bias.tolist()) == ([-2, 0, 3], [7, 8, -9])


@pytest.mark.parametrize(
    "grid",
    [
        None,
        Steps(1.0, 1.0, 0, 256),
        Steps(1.0, 1.0, -128, 128),
        Steps(1.0, 1.0, -256, 0),
        Steps(1.0, 1.0, 1, 255),  # 0 is not among the codes, but borders need it
        Steps(1.0, 1.0, -255, -1),
    ],
    ids=str,
)
def test_inputs_that_are_no_bytes_with_a_zero_have_no_narrow_form(grid: Steps | None) -> None:
    matrix = Matrix(Codes(np.ones((2, 3), np.int16), 256, 1, np.array([0], np.int32)))
    assert narrow(matrix, 1, Value((3,), grid)) is None
    assert narrow(matrix, 1, Value((3,), GRIDS[0])) is not None


def test_float_weights_have_no_narrow_form() -> None:
    assert narrow(Matrix(np.ones((2, 3), np.float32)), 1, Value((3,), GRIDS[0])) is None


def test_the_largest_sums_stay_what_they_are() -> None:
    """Sums reach 2^31 - 1, int32's limit: the conversion to fp32 comes after the sum."""
    values = np.full((2, 33_025), 255, np.int16)
    values[1] = -255
    matrix = Matrix(Codes(values, 256, 2, np.array([-255], np.int32)), bias=np.array([33_022, -33_022], np.int32))
    assert matrix.reach(Value((33_025,), GRIDS[0])) == 2**31 - 1
    found = same(matrix, GRIDS[0], 1, np.random.default_rng(0))
    assert found.channels is not None
    sums = found.weight.astype(np.int64) @ np.full(33_025, 255)[found.channels]
    assert (sums + found.bias).tolist() == [2**31 - 1, 1 - 2**31]
