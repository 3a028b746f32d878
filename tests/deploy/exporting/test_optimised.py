"""ONNX Runtime's optimisations: which layers become integer, and how the numbers change."""

from __future__ import annotations

from functools import cache
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import Tensor, nn

pytest.importorskip("onnx")
pytest.importorskip("onnxruntime")

import onnx

from bn_merge.merge import merge
from deploy.exporting.biases import rounded
from deploy.exporting.model import exported
from deploy.operations.base import Matrix
from deploy.operations.functions import Combine, Function
from deploy.operations.layers import Convolution, Linear, Quantize
from deploy.operations.places import Reshape
from deploy.program import Program
from deploy.reference.run import run
from models.graph.capture.form import capture
from models.graph.normal import NormalForm
from models.layers.quantizers.base import Steps
from tests.deploy.by_hand import codes, drawn, given, op, program
from tests.deploy.exporting.sessions import Nodes, answers, session
from tests.deploy.quantized import SIDE, SPECS, as_numbers, lowered, merged, pictures, trained
from tests.tools.cases import conv_bn


class Mean(nn.Module):
    def forward(self, x: Tensor) -> Tensor:
        return x.mean((2, 3))


@cache
def chain() -> NormalForm:
    """Return four convolutions in a row."""
    torch.manual_seed(0)
    layers = [conv_bn(3, 8), conv_bn(8, 8, stride=2), conv_bn(8, 8), nn.Conv2d(8, 10, 1), Mean()]
    return capture(nn.Sequential(*layers).eval(), (3, SIDE, SIDE), "a test")


def optimised(made: Program, path: Path) -> list[str]:
    """Return the kinds of nodes in ONNX Runtime's optimised model of a program with rounded biases."""
    session(exported(rounded(made).program), "ENABLE_ALL", optimized_model_filepath=str(path))
    return Nodes(onnx.load(path)).kinds()


@pytest.mark.parametrize(
    ("kind", "integer"),
    [
        ("w8a8", 2),  # the third gives fp32: training did not quantize the last one's input
        ("w4a4", 2),
        ("wta8", 2),
        ("lsq", 3),  # the last one gives the answer, in fp32
        ("int8", 3),
        ("int8 symmetric", 3),
        ("wbab bacp", 1),  # the first gives fp32 for the sign, the third for the last
    ],
)
def test_layers_that_give_codes_become_integer(kind: str, integer: int, tmp_path: Path) -> None:
    """A layer that reads and gives codes becomes a QLinearConv; a layer that gives fp32 is computed in fp32."""
    made = lowered(merge(trained(chain(), SPECS[kind])))
    assert sum(isinstance(operation, Convolution) for operation in made.operations) == 4
    assert optimised(made, tmp_path / "optimised.onnx").count("QLinearConv") == integer


def test_sums_in_codes_are_added_as_integers(tmp_path: Path) -> None:
    """A sum is integer if its result is in codes, too; a mean reads the last sum of this network."""
    plain, coded = (optimised(lowered(merged("Residual", kind)), tmp_path / kind) for kind in ("int8", "int8 sums"))
    made = lowered(merged("Residual", "int8 sums"))
    sums = sum(isinstance(operation, Combine) and operation.kind == "add" for operation in made.operations)
    assert plain.count("QLinearAdd") == 0
    assert coded.count("QLinearAdd") == sums - 1 > 0
    assert coded.count("QLinearConv") > plain.count("QLinearConv")


@pytest.mark.parametrize("kind", ["w4a4", "lsq", "int8", "wtab"])
@pytest.mark.parametrize("name", ["Residual", "ShuffleUnits"])
def test_basic_optimisations_change_no_bit(name: str, kind: str) -> None:
    made, x = lowered(merged(name, kind)), pictures(4)
    assert torch.equal(answers(made, x, "ENABLE_BASIC"), answers(made, x))


GRID, FEW = Steps(40.0, 1 / 40, -128, 127), Steps(9.0, 1 / 9, 0, 15)
SMALL = codes(drawn(-63, 63, 8, 3, 3, 3))
"""Weights whose pairs of products fit 16 bits: larger weights overflow on processors without VNNI."""
SCALE = np.random.default_rng(1).uniform(-0.003, 0.003, 8).astype(np.float32)
BIAS = drawn(-999, 999, 8).astype(np.int32)


@pytest.mark.parametrize("grid", [GRID, FEW], ids=str)
@pytest.mark.parametrize("relu", [False, True])
def test_integer_layers_give_the_codes_or_their_neighbours(relu: bool, grid: Steps, tmp_path: Path) -> None:
    layer = op(Convolution, 1, matrix=Matrix(SMALL, SCALE, BIAS), padding=(1, 1, 1, 1))
    between = [op(Function, 2, kind="relu")] * relu
    coded = op(Quantize, 2 + relu, grid=grid)
    made = program(op(Quantize, 0, grid=GRID), layer, *between, coded, as_numbers(3 + relu, (8, 8, 7)))
    assert "QLinearConv" in optimised(made, tmp_path / "optimised.onnx")
    x = given(made, 20)
    apart = (answers(made, x, "ENABLE_ALL") - run(made, x)).abs()
    assert apart.max() < 1.01
    assert (apart < 0.01).float().mean() > 0.98


FLAT = op(Reshape, 0, shape=(168,))
LINEAR = {
    "on numbers": [FLAT, op(Linear, 1, matrix=Matrix(codes(drawn(-127, 127, 5, 168)), np.full(5, 0.02, np.float32)))],
    "on codes": [
        FLAT, op(Quantize, 1, grid=GRID), op(Linear, 2, matrix=Matrix(codes(drawn(-63, 63, 8, 168)), SCALE, BIAS)),
    ],
    "over rows of codes": [
        op(Quantize, 0, grid=GRID), op(Linear, 1, matrix=Matrix(codes(drawn(-63, 63, 8, 7)), SCALE, BIAS)),
    ],
}  # fmt: skip


@pytest.mark.parametrize("name", LINEAR)
def test_linear_layers_give_the_numbers(name: str) -> None:
    """Rows of int8 have a scale each; a Transpose may follow, and the scale stays with its row."""
    made = program(*LINEAR[name])
    x = given(made)
    expected = run(made, x)
    torch.testing.assert_close(
        answers(made, x, "ENABLE_ALL"), expected, rtol=1e-5, atol=1e-5 * expected.abs().max().item()
    )


def test_a_hardswish_is_written_as_runtimes_know_it() -> None:
    nodes = Nodes(exported(program(op(Function, 0, kind="hardswish"))))
    inner, outer = nodes.of("HardSigmoid"), nodes.of("Mul")
    assert (len(inner), len(outer), len(nodes.all)) == (1, 1, 3)
    told = {each.name: each.f for each in inner[0].attribute}
    assert told == {"alpha": np.float32(1 / 6), "beta": 0.5}
    assert [*outer[0].input] == ["picture", inner[0].output[0]]
