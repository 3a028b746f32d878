"""Biases for engines that add integers: on the grid of the sums, where nothing but codes reads them."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
from numpy.typing import NDArray

from deploy.exporting.biases import on_grid, rounded
from deploy.operations.base import Codes, Matrix
from deploy.operations.layers import Convolution, Decode, Linear, Quantize
from deploy.operations.places import Reshape
from deploy.program import Program
from deploy.reference.run import run
from models.layers.quantizers.base import Steps
from tests.deploy.quantized import lowered, merged, pictures

ONES = Codes(np.ones((5, 2), np.int16), 2, 2, np.array([-1], np.int32))


def given(weight: Codes, scale: list[float], bias: list[float]) -> Matrix:
    return Matrix(weight, np.array(scale, np.float32), None, np.array(bias, np.float32))


def real(found: Matrix) -> NDArray[np.float64]:
    """Return a bias in real numbers."""
    assert found.scale is not None
    whole = np.zeros(len(found.scale)) if found.bias is None else found.bias * found.scale.astype(float)
    return whole if found.shift is None else whole + found.shift


@pytest.mark.parametrize(
    ("scale", "bias"),
    [([0.5, -0.25, 2.0, 1.0, 3.0], [1.3, 1.5, 7.0, -0.1, 1e6]), ([0.5, 0.0, 1e-9, -1e-30, 1.0], [1.3, 3.0, 100.0, -7.0, 0.0])],
)  # fmt: skip
def test_a_bias_lies_on_the_grid_where_that_reaches(scale: list[float], bias: list[float]) -> None:
    """A bias beyond the grid, or with scale 0, is added in fp32. The weights' real values do not change."""
    found = on_grid(given(ONES, scale, bias))
    size = np.array(scale, np.float32)
    assert isinstance(found.weight, Codes)
    assert found.scale is not None
    assert np.array_equal(found.weight.values * found.scale[:, None], ONES.values * size[:, None])
    assert found.bias is not None
    shift = np.zeros(5) if found.shift is None else found.shift.astype(float)
    assert (found.bias[shift != 0] == 0).all()
    assert (np.abs(real(found) - bias) <= np.abs(size) / 2 + 1e-7).all()


def test_what_a_far_coarser_grid_cannot_hold_is_added_in_fp32() -> None:
    """Such filters have inputs that hardly vary, enlarged by a batch norm; other filters keep their bias on the grid only."""
    weight = Codes(np.full((5, 2), 100, np.int16), 256, 1, np.array([-128], np.int32))
    found = on_grid(given(weight, [0.01, -0.01, 0.02, 0.5, -0.25], [0.304, 0.304, 0.5, 3.3, 1.0]))
    assert found.bias is not None
    assert found.shift is not None
    assert found.bias.tolist() == [30, -30, 25, 7, -4]  # 3.3 is 6.6 steps of 0.5; 1.0 is on its grid
    np.testing.assert_allclose(found.shift, [0, 0, 0, -0.2, 0], atol=1e-6)


@pytest.mark.parametrize("scale", [[0.5, -0.25, 2.0, 1.0, 3.0], [0.5, 0.0, 2.0, 1.0, 3.0]], ids=["all", "a dead row"])
def test_few_bits_are_made_finer(scale: list[float]) -> None:
    """A bias rounded to the grid of signs would be off by up to half a weight."""
    bias = [1.3, 1.5, 7.1, -0.1, 0.7]
    assert (np.abs(real(on_grid(given(ONES, scale, bias))) - bias) <= np.abs(scale) * np.float64(0.02) + 1e-6).all()


def test_a_whole_part_counts() -> None:
    found = on_grid(replace(given(ONES, [0.5] * 5, [0.25] * 5), bias=np.full(5, 3, np.int32)))
    assert real(found).tolist() == [1.75] * 5
    assert found.shift is None


def test_the_farthest_bias_is_told_in_steps_of_the_codes_behind() -> None:
    """Sums have steps of 0.5 / 32, as codes of one bit are multiplied by 32; the codes behind have steps of 0.25."""
    layer = Linear(sources=(2,), name="layer", matrix=given(ONES, [0.5] * 5, [1, 0.5, 0.25 + 1 / 256, -1 / 128, 0]))
    operations = (
        Reshape(sources=(0,), name="flat", shape=(2,)),
        Quantize(sources=(1,), name="in", grid=Steps(1.0, 1.0, 0, 3)),
        layer,
        Quantize(sources=(3,), name="out", grid=Steps(4.0, 0.25, 0, 15)),
        Decode(sources=(4,), name="answer"),
    )
    found = rounded(Program(operations, (1, 1, 2), (0.5,), (0.25,)))
    assert found.layers == ["layer"]
    assert found.farthest == pytest.approx(4 / 128)


@pytest.mark.parametrize(("kind", "some"), [("int8", True), ("w4a4", True), ("wbab bacp", False), ("float", False)])
def test_layers_whose_codes_engines_compute_are_rounded(kind: str, some: bool) -> None:
    """Their codes move by one at most. Layers that give signs or fp32 keep their bias."""
    program = lowered(merged("mobilenet_v1", kind), low_ends=False)
    found, names, farthest = rounded(program)
    assert bool(names) == bool(farthest) == some
    assert farthest < 0.5
    for before, after in zip(program.operations, found.operations, strict=True):
        assert (before is after) == (after.name not in names or not isinstance(after, (Convolution, Linear)))
    assert rounded(found).layers == []
    assert rounded(program, keep=True) == (program, [], 0.0)
    if some:
        expected, answer = (run(each, pictures(8)) for each in (program, found))
        assert 0 < (answer - expected).abs().max() < expected.abs().max()
