"""An operation that ONNX does not have is refused with exit 2 and the layer's name."""

from __future__ import annotations

import numpy as np
import pytest

pytest.importorskip("onnx")

from deploy.exporting.model import exported
from deploy.operations.base import Matrix, Operation
from deploy.operations.layers import Convolution, Quantize
from deploy.operations.pools import AdaptivePool
from engine.errors import USAGE, UserError
from models.layers.quantizers.base import Steps
from tests.deploy.by_hand import codes, op, program

ONES = op(Convolution, 1, matrix=Matrix(codes(np.ones((3, 3, 1, 1)))))


def coded(low: int, high: int) -> list[Operation]:
    return [op(Quantize, 0, grid=Steps(9.0, 1 / 9, low, high)), ONES]


@pytest.mark.parametrize(
    ("operations", "words"),
    [
        ([op(AdaptivePool, 0, kind="max", size=(3, 7))], ["the adaptivepool: ", "(3, 7)", "(8, 7)"]),
        ([op(AdaptivePool, 0, kind="max", size=(16, 14))], ["the adaptivepool: ", "(16, 14)", "(8, 7)"]),
        (coded(-1000, 1000), ["the quantize: ", "-1000 to 1000", "8 bits"]),
        (
            coded(2, 7),
            ["the quantize: ", "2 to 7"],
        ),  # no quantizer of the toolkit has such codes, but a packed file may
        (coded(-300, -200), ["the quantize: ", "-300 to -200"]),
    ],
    ids=["windows apart", "more windows", "too many codes", "codes above 0", "codes below 0"],
)
def test_what_onnx_cannot_say_is_refused_by_name(operations: list[Operation], words: list[str]) -> None:
    with pytest.raises(UserError) as fault:
        exported(program(*operations))
    assert (fault.value.code, bool(fault.value.hint)) == (USAGE, True)
    for word in words:
        assert word in str(fault.value)


def scaled(inverse: float, scale: float) -> list[Operation]:
    """Return a layer that reads codes in steps of 1 / inverse."""
    matrix = Matrix(codes(np.ones((3, 3, 1, 1))), np.full(3, scale, np.float32))
    return [op(Quantize, 0, grid=Steps(inverse, 1.0, 0, 255)), op(Convolution, 1, matrix=matrix)]


@pytest.mark.parametrize(
    ("inverse", "scale", "words"),
    [
        (1e-45, 1.0, "the quantize: a number that fp32 cannot hold"),  # the step is 1e45
        (1e38, 1e9, "the convolution: a number that fp32 cannot hold"),  # the weight's step is 1e47
        (1e-30, 1e-20, "the convolution: a scale that is 0 in fp32, divided by the step of the input"),
    ],
)
def test_steps_beyond_fp32_are_refused_by_name(inverse: float, scale: float, words: str) -> None:
    with pytest.raises(UserError, match=words) as fault:
        exported(program(*scaled(inverse, scale)))
    assert (fault.value.code, fault.value.hint) == (
        USAGE,
        "train or calibrate this layer again: ONNX models hold fp32 numbers",
    )


def test_a_dead_filter_is_taken() -> None:
    assert exported(program(*scaled(1 / 3, 1e-45))).graph.node


@pytest.mark.parametrize("kind", ["mean", "max"])
def test_windows_that_divide_are_taken(kind: str) -> None:
    model = exported(program(op(AdaptivePool, 0, kind=kind, size=(4, 7))))
    assert model.graph.node[0].op_type == {"mean": "AveragePool", "max": "MaxPool"}[kind]
