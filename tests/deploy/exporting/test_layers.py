"""Export of layers on codes, on programs made by hand.

A ReLU or clamp that codes imply is left out; weights beyond int8 read copies of channels.
"""

from __future__ import annotations

import numpy as np
import pytest
import torch

pytest.importorskip("onnx")
pytest.importorskip("onnxruntime")

from deploy.exporting.model import exported
from deploy.operations.base import Matrix, Operation
from deploy.operations.functions import Combine, Function
from deploy.operations.layers import Convolution, Linear, Quantize
from deploy.operations.places import Pad, Reshape
from deploy.operations.pools import MaxPool
from deploy.program import Program
from deploy.reference.run import run
from models.layers.quantizers.base import Signs, Steps
from tests.deploy.by_hand import codes, drawn, given, op, program
from tests.deploy.exporting.sessions import Nodes, answers

BYTES, POSITIVE, FEW = Steps(40.0, 1 / 40, -128, 127), Steps(32.0, 1 / 32, 0, 255), Steps(4.0, 0.25, 0, 15)
SIGNED = Steps(4.0, 0.25, -8, 7)
SAME = {"padding": (1, 1, 1, 1)}
RELU = {"kind": "relu"}
POOL = {"kernel": (2, 2), "stride": (2, 2)}
SLIDING = {"kernel": (2, 2), "stride": (1, 1), "padding": (1, 0, 0, 1)}


def layer(source: int, out: int = 3, into: int = 3, most: int = 60, groups: int = 1, plain: bool = False) -> Operation:
    weight = drawn(-most, most, out, into // groups, 3, 3)
    scale = None if plain else np.random.default_rng(1).uniform(-0.003, 0.003, out).astype(np.float32)
    return op(
        Convolution, source, matrix=Matrix(codes(weight), scale, drawn(-99, 99, out).astype(np.int32)), groups=groups,
        **SAME,
    )  # fmt: skip


def assert_equal(made: Program) -> None:
    """Check that ONNX Runtime gives the reference's numbers, and that these vary."""
    x = given(made) * 3
    expected = run(made, x)
    assert expected.unique().numel() > 100
    torch.testing.assert_close(answers(made, x), expected, rtol=1e-5, atol=1e-5 * expected.abs().max().item())


def kinds(made: Program) -> list[str]:
    return Nodes(exported(made)).kinds()


def between(*operations: tuple[type[Operation], dict], grid: Steps) -> Program:
    """Return a program: a layer on codes, these operations, then codes that another layer reads."""
    made = [op(Quantize, 0, grid=BYTES), layer(1)]
    for kind, settings in (*operations, (Quantize, {"grid": grid})):
        made.append(op(kind, len(made), **settings))
    return program(*made, layer(len(made)))


RECTIFIED = pytest.mark.parametrize(
    "operations",
    [
        [(Function, RELU)],
        [(Function, RELU), (MaxPool, POOL)],
        [(MaxPool, POOL), (Function, RELU)],
        [(MaxPool, SLIDING), (Function, RELU), (MaxPool, SLIDING)],
    ],
    ids=["alone", "before a pool", "behind a pool", "between pools"],
)


@RECTIFIED
@pytest.mark.parametrize("grid", [POSITIVE, FEW], ids=str)
def test_a_relu_before_codes_from_0_is_left_out(operations: list, grid: Steps) -> None:
    made = between(*operations, grid=grid)
    assert "Relu" not in kinds(made)
    assert_equal(made)


@RECTIFIED
@pytest.mark.parametrize("grid", [BYTES, SIGNED], ids=str)
def test_a_relu_before_codes_below_0_is_done_on_codes(operations: list, grid: Steps) -> None:
    """With a ReLU after a layer, engines would not compute the layer in integers."""
    made = between(*operations, grid=grid)
    assert "Relu" not in kinds(made)
    assert_equal(made)


def clamp(least: float, most: float) -> tuple[type[Operation], dict]:
    return Function, {"kind": "clamp", "settings": (least, most)}


@pytest.mark.parametrize(
    ("operations", "ends"),
    [
        ([clamp(0, 6)], (0, 127)),  # ReLU6 on codes that end below 6
        ([clamp(-1.3, 1.74)], (-52, 70)),
        ([(MaxPool, POOL), clamp(0.5, 9), (MaxPool, SLIDING)], (20, 127)),
        ([(Function, RELU), clamp(-1, 2)], (0, 80)),
    ],
    ids=["ReLU6", "within codes", "between pools", "behind a ReLU"],
)
def test_a_clamp_before_codes_is_done_on_codes(operations: list, ends: tuple[int, int]) -> None:
    made = between(*operations, grid=BYTES)
    nodes = Nodes(exported(made))
    assert not {"Clip", "Relu"} & {*nodes.kinds()}
    low, high = ends
    assert [int(nodes.stored[node.input[1]]) for node in nodes.of("Max")] == [low + 128] * (low > -128)
    assert [int(nodes.stored[node.input[1]]) for node in nodes.of("Min")] == [high + 128] * (high < 127)
    assert_equal(made)


def test_a_clamp_that_others_read_stays() -> None:
    made = program(
        op(Quantize, 0, grid=BYTES), layer(1), op(Function, 2, kind="clamp", settings=(0.0, 6.0)), op(Quantize, 3, grid=POSITIVE),
        layer(4), op(Combine, 5, 3, kind="add"),
    )  # fmt: skip
    assert kinds(made).count("Clip") == 1
    assert_equal(made)


def test_a_relu_that_others_read_stays() -> None:
    made = program(
        op(Quantize, 0, grid=BYTES), layer(1), op(Function, 2, **RELU), op(Quantize, 3, grid=POSITIVE), layer(4),
        op(Combine, 5, 3, kind="add"),
    )  # fmt: skip
    assert kinds(made).count("Relu") == 1
    assert_equal(made)


def test_a_pool_between_a_layer_and_codes_pools_codes() -> None:
    nodes = Nodes(exported(between((MaxPool, POOL), grid=FEW)))
    (pool,) = nodes.of("MaxPool")
    behind = nodes.before(pool)
    cut = nodes.before(behind)
    coded = nodes.before(cut)
    kinds = [node.op_type for node in (behind, cut, coded, nodes.before(coded))]
    assert kinds == ["DequantizeLinear", "Min", "QuantizeLinear", "Conv"]


@pytest.mark.parametrize("grid", [FEW, SIGNED, Steps(4.0, 0.25, 0, 1), Steps(4.0, 0.25, -63, 64)], ids=str)
def test_codes_below_8_bits_end_where_they_end(grid: Steps) -> None:
    ones = op(Convolution, 1, matrix=Matrix(codes(np.ones((3, 1, 1, 1)))), groups=3)
    made = program(op(Quantize, 0, grid=grid), ones)
    ends = torch.tensor([1e4, -1e4, 0]).repeat(56).reshape(1, 3, 8, 7)
    assert answers(made, ends).unique().tolist() == sorted({grid.low, 0, grid.high})


@pytest.mark.parametrize("groups", [1, 3])
@pytest.mark.parametrize("grid", [BYTES, POSITIVE, FEW, Signs(), Signs(0.5)], ids=str)
def test_weights_beyond_int8_read_copies_of_the_codes(grid: Steps | Signs, groups: int) -> None:
    made = program(op(Quantize, 0, grid=grid), layer(1, 6, most=255, groups=groups))
    nodes = Nodes(exported(made))
    (copied,) = nodes.of("Gather")
    assert nodes.before(copied).op_type in ("QuantizeLinear", "Min")
    assert nodes.readers(copied.output[0]) == {"DequantizeLinear"}
    weights = [held for held in nodes.stored.values() if held.ndim == 4]
    assert [held.dtype for held in weights] == [np.int8]
    assert_equal(made)


@pytest.mark.parametrize("settings", [{}, {"kind": "reflect"}, {"kind": "replicate"}, {"channels": (1, 2)}], ids=str)
@pytest.mark.parametrize("most", [60, 255])
def test_borders_of_codes(most: int, settings: dict) -> None:
    width = 3 + sum(settings.get("channels", ()))
    border = op(Pad, 1, sides=(1, 2, 0, 3), **settings)
    for grid in (BYTES, FEW, Signs()):
        assert_equal(program(op(Quantize, 0, grid=grid), border, layer(2, 6, width, most)))


def test_linear_layers_beyond_int8_are_stored_as_integers_too() -> None:
    """Asymmetric weights give such layers. 168 rows of fp32 would take four times the bytes and run as floats."""
    matrix = Matrix(codes(drawn(-255, 255, 60, 168)), np.full(60, 0.01, np.float32))
    made = program(op(Reshape, 0, shape=(168,)), op(Quantize, 1, grid=POSITIVE), op(Linear, 2, matrix=matrix))
    stored = Nodes(exported(made)).stored.values()
    assert max(held.nbytes for held in stored if held.dtype == np.float32) < 1000
    assert_equal(made)


@pytest.mark.parametrize("most", [1, 60])
def test_where_the_sign_alone_counts_sums_are_whole(most: int) -> None:
    """Sums saturate beyond 8 bits and keep their sign; a pool and a sign flip between do not matter."""
    made = program(
        op(Quantize, 0, grid=Signs()), layer(1, 8, most=most, plain=True), op(MaxPool, 2, **POOL),
        op(Quantize, 3, grid=Signs()), layer(4, 20, 8, plain=True),
    )  # fmt: skip
    nodes = Nodes(exported(made))
    first, last = nodes.of("Conv")
    assert (nodes.readers(first.output[0]), nodes.readers(last.output[0])) == ({"QuantizeLinear"}, {"Identity"})
    x = given(made)
    assert torch.equal(answers(made, x), run(made, x))


def test_the_sign_of_what_lies_between_whole_numbers() -> None:
    """No layer of the toolkit before a sign has a shift, but a packed file's layer may."""
    taps = np.array([[1, 0, 0], [-1, 0, 0]]).reshape(2, 3, 1, 1)
    matrix = Matrix(codes(taps), None, np.array([-1, 1], np.int32), np.array([-0.3, -0.3], np.float32))
    made = program(
        op(Quantize, 0, grid=Signs()), op(Convolution, 1, matrix=matrix), op(Quantize, 2, grid=Signs()), layer(3, 6, 2)
    )
    x = given(made)
    torch.testing.assert_close(answers(made, x), run(made, x))
