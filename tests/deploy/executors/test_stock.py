"""The executor of stock PyTorch on programs made by hand: codes are the reference's or their neighbours, all else is exact."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch
from numpy.typing import NDArray
from torch import Tensor

from deploy.executors.stock import Stock
from deploy.operations.base import Codes, Matrix, Operation, Value
from deploy.operations.functions import Combine, Constant, Function
from deploy.operations.layers import Convolution, Decode, Linear, Quantize
from deploy.operations.places import MaxPool, Pad, Reshape
from deploy.program import Program
from deploy.reference.run import run
from models.layers.quantizers.base import Signs, Steps
from tests.deploy.quantized import as_numbers

SHAPE = (8, 9, 7)
Said = tuple[type[Operation], dict[str, Any]]


def drawn(low: int, high: int, *shape: int) -> NDArray[Any]:
    return np.random.default_rng(0).integers(low, high + 1, shape)


def codes(values: NDArray[Any]) -> Codes:
    return Codes(values.astype(np.int16), 256, 1, np.array([-128], np.int32))


def matrix(rows: int, *rest: int, most: int = 63, gain: float = 1, whole: bool = False) -> Matrix:
    """Weights up to `most`; scales of both signs, biases on the grid and beside it, or alone, as before signs."""
    weight, draws = codes(drawn(-most, most, rows, *rest)), np.random.default_rng(1)
    if whole:
        return Matrix(weight, None, drawn(-9, 9, rows).astype(np.int32))
    scale = gain * draws.uniform(0.2, 1, rows) * draws.choice([-1, 1], rows) / (most * 40 * np.prod(rest) ** 0.5)
    bias, shift = drawn(-99, 99, rows).astype(np.int32), draws.normal(size=rows).astype(np.float32)
    return Matrix(weight, scale.astype(np.float32), bias, shift)


def program(*operations: Said, shape: tuple[int, ...] = SHAPE) -> Program:
    """One operation after the other; codes at the end are given as numbers."""
    made: list[Operation] = []
    value = Value(shape)
    for kind, settings in operations:
        made.append(kind(**settings, sources=(len(made),), name=f"{len(made)}"))
        value = made[-1].value(value)
    if value.grid is not None:
        made.append(as_numbers(len(made), value.shape))
    return Program(tuple(made), shape, (0.5,) * shape[0], (0.25,) * shape[0])


def given(shape: tuple[int, ...] = SHAPE) -> Tensor:
    return torch.randn(5, *shape, generator=torch.Generator().manual_seed(0))


def quantize(grid: Steps | Signs) -> Said:
    return Quantize, {"grid": grid}


def conv(*weight: int, gain: float = 1, most: int = 63, whole: bool = False, **settings: Any) -> Said:
    return Convolution, {"matrix": matrix(*weight, gain=gain, most=most, whole=whole), **settings}


def linear(*weight: int, **made: Any) -> Said:
    return Linear, {"matrix": matrix(*weight, **made)}


def pool(kernel: tuple[int, int], stride: tuple[int, int], **settings: Any) -> Said:
    return MaxPool, {"kernel": kernel, "stride": stride, **settings}


BYTES, POSITIVE = Steps(40.0, 1 / 40, -128, 127), Steps(100.0, 0.01, 0, 255)
FEW, FEWER = Steps(4.0, 0.25, 0, 15), Steps(2.0, 0.5, -3, 4)
RELU: Said = (Function, {"kind": "relu"})
FLAT: Said = (Reshape, {"shape": (504,)})
SAME: dict[str, Any] = {"padding": (1, 1, 1, 1)}
CODE: Said = quantize(BYTES)
PROGRAMS: dict[str, list[Said]] = {
    "a layer": [CODE, conv(12, 8, 3, 3, **SAME), CODE],
    "codes from 0": [quantize(POSITIVE), conv(12, 8, 3, 3, **SAME), quantize(POSITIVE)],
    "a ReLU": [CODE, conv(12, 8, 3, 3, **SAME), RELU, CODE],
    "a pool": [CODE, conv(12, 8, 3, 3, **SAME), pool((2, 2), (2, 2)), CODE],
    "a pool behind a ReLU": [CODE, conv(12, 8, 3, 3, stride=(2, 1), gain=4), RELU, pool((3, 3), (2, 2), ceil=True, **SAME), quantize(FEW)],
    "two pools": [CODE, conv(12, 8, 1, 1), pool((3, 2), (1, 1), padding=(1, 0, 0, 1)), RELU, pool((2, 2), (1, 2), dilation=(2, 1)), CODE],
    "codes of 4 bits": [quantize(FEW), conv(12, 8, 3, 3, gain=20, **SAME), RELU, quantize(FEW)],
    "codes of 3 bits with a zero": [quantize(FEWER), conv(12, 8, 3, 3, gain=20, **SAME), quantize(FEWER)],
    "groups": [CODE, conv(12, 2, 3, 3, groups=4, **SAME), CODE],
    "each channel apart": [CODE, conv(8, 1, 3, 3, groups=8, stride=(2, 2), gain=4, **SAME), RELU, quantize(FEW)],
    "another border on each side": [CODE, conv(12, 8, 3, 2, padding=(2, 0, 1, 3), dilation=(2, 1)), CODE],
    "a border of its own": [CODE, (Pad, {"sides": (2, 1, 0, 3), "channels": (1, 0)}), conv(12, 9, 3, 3), CODE],
    "a mirrored border": [CODE, (Pad, {"sides": (2, 1, 3, 0), "kind": "reflect"}), conv(12, 8, 3, 3), CODE],
    "a border of the other end": [CODE, (Pad, {"sides": (2, 1, 3, 0), "kind": "circular"}), conv(12, 8, 3, 3), CODE],
    "weights beyond int8": [quantize(Steps(20.0, 0.05, 0, 60)), conv(12, 8, 3, 3, most=255, **SAME), CODE],
    "weights beyond int8 in groups": [quantize(Steps(20.0, 0.05, -30, 30)), conv(12, 4, 3, 3, most=255, groups=2, **SAME), CODE],
    "linear layers": [FLAT, CODE, linear(20, 504), RELU, CODE, linear(40, 20, gain=4), quantize(FEW)],
    "a linear layer over rows": [CODE, linear(6, 7), CODE],
}  # fmt: skip


@pytest.mark.usefixtures("_int8")
@pytest.mark.parametrize("name", PROGRAMS)
def test_codes_are_those_of_the_reference_or_next_to_them(name: str) -> None:
    made, x = program(*PROGRAMS[name]), given()
    executor, expected = Stock(made), run(made, x)
    assert executor.how == "int8 convolutions of oneDNN"
    assert any(len(step.covers) > 1 for step in executor.steps) == ("linear" not in name)  # what follows is fused
    found = executor(x)
    assert expected.unique().numel() >= 7
    assert (found - expected).abs().max() <= 1
    assert (found == expected).float().mean() > 0.98


@pytest.mark.parametrize("name", PROGRAMS)
def test_in_fp32_codes_are_those_of_the_reference(name: str) -> None:
    made, x = program(*PROGRAMS[name]), given()
    assert torch.equal(Stock(made, integers=False)(x), run(made, x))


@pytest.mark.usefixtures("_int8")
@pytest.mark.parametrize("side", [11, 12, 33])
def test_pools_of_maps_of_any_size(side: int) -> None:
    shape = (8, side, side)
    made = program(CODE, conv(12, 8, 3, 3, **SAME), RELU, pool((2, 2), (2, 2)), CODE, shape=shape)
    assert (Stock(made)(given(shape)) - run(made, given(shape))).abs().max() <= 1


@pytest.mark.usefixtures("_int8")
@pytest.mark.parametrize("grid", [Signs(), Signs(0.5)], ids=str)
@pytest.mark.parametrize(
    "layers",
    [
        [conv(12, 8, 3, 3, whole=True, **SAME), conv(5, 12, 3, 3, whole=True, padding=(2, 0, 1, 1))],
        [conv(12, 2, 3, 3, whole=True, groups=4), conv(12, 1, 3, 3, whole=True, groups=12, **SAME)],
        [FLAT, linear(30, 504, most=1, whole=True), linear(9, 30, whole=True)],
    ],
    ids=["convolutions", "groups", "linear layers"],
)
def test_signs_are_exact(layers: list[Said], grid: Signs) -> None:
    """Whole numbers alone; a border is 0, for which the bytes of signs have a place."""
    *before, first, last = layers
    made, x = program(*before, quantize(grid), first, quantize(grid), last, quantize(grid)), given()
    expected = run(made, x)
    assert {-1, 1} <= {*expected.unique().tolist()}
    assert torch.equal(Stock(made)(x), expected)


@pytest.mark.usefixtures("_int8")
@pytest.mark.parametrize("grid", [BYTES, POSITIVE, FEW, FEWER, Signs(), Signs(0.5)], ids=str)
def test_numbers_that_a_layer_gives_are_those_of_the_reference(grid: Steps | Signs) -> None:
    made, x = program(quantize(grid), conv(12, 8, 3, 3, **SAME)), given()
    torch.testing.assert_close(Stock(made)(x), run(made, x), rtol=1e-5, atol=1e-6)


@pytest.mark.usefixtures("_int8")
@pytest.mark.parametrize("grid", [BYTES, POSITIVE, FEWER], ids=str)
def test_numbers_of_codes_are_exact(grid: Steps) -> None:
    made = program(quantize(grid), (Decode, {}))
    assert torch.equal(Stock(made)(given()), run(made, given()))
    assert torch.equal(Stock(made, integers=False)(given()), run(made, given()))


@pytest.mark.usefixtures("_int8")
@pytest.mark.parametrize("grid", [BYTES, POSITIVE, FEWER, Signs(), Signs(0.5)], ids=str)
@pytest.mark.parametrize("kind", [Convolution, Linear])
def test_float_weights_read_the_codes_and_not_their_bytes(kind: type[Operation], grid: Steps | Signs) -> None:
    """As of a network whose activations alone are quantized."""
    real = np.random.default_rng(0).normal(size=(12, 8, 3, 3) if kind is Convolution else (12, 504)).astype(np.float32)
    settings = {"matrix": Matrix(real), **(SAME if kind is Convolution else {})}
    made, x = program(*([] if kind is Convolution else [FLAT]), quantize(grid), (kind, settings)), given()
    torch.testing.assert_close(Stock(made)(x), run(made, x), rtol=1e-5, atol=1e-3)


@pytest.mark.usefixtures("_int8")
@pytest.mark.parametrize("bias", [0, 2**30])
def test_sums_above_what_fp32_counts(bias: int) -> None:
    """They are added in int32: in fp32 the large ones would swallow the small."""
    weight = np.where(np.arange(4000) < 2000, 63, -63) * np.ones((3, 1), int)
    large, shape = Matrix(codes(weight), None, np.array([bias, -bias, 5], np.int32)), (4, 40, 25)
    made = program((Reshape, {"shape": (4000,)}), CODE, (Linear, {"matrix": large}), shape=shape)
    x = given(shape).abs() * 3
    torch.testing.assert_close(Stock(made)(x), run(made, x), rtol=1e-6, atol=0)


@pytest.mark.usefixtures("_int8")
@pytest.mark.parametrize(("low", "high"), [(-1000, 1000), (2, 7), (-9, -2)])
def test_codes_that_are_no_bytes_about_0(low: int, high: int) -> None:
    """No quantizer of ours has such a grid; a packed file may."""
    grid = Steps(9.0, 1 / 9, low, high)
    made, x = program(quantize(grid), conv(12, 8, 3, 3, **SAME), quantize(grid)), given() * 30
    assert torch.equal(Stock(made)(x), run(made, x))


@pytest.mark.usefixtures("_int8")
@pytest.mark.parametrize("number", [5.0, 5e7, 6e7, 1e30, float("inf")])
def test_numbers_beyond_the_last_code_get_that_one(number: float) -> None:
    """However far: at 6e7 they are more than 2^31 steps of 1 / 40 away."""
    made = program(CODE)
    ends = torch.tensor([number, -number]).repeat_interleave(504).reshape(2, *SHAPE)
    assert [part.unique().tolist() for part in Stock(made)(ends)] == [[127], [-128]]


def test_values_that_are_read_twice_or_late() -> None:
    names = iter("abcdefghij")

    def op(kind: type[Operation], /, *sources: int, **settings: Any) -> Operation:
        return kind(**settings, sources=sources, name=next(names))

    operations = (
        op(Function, 0, kind="relu"), op(Quantize, 1, grid=BYTES), op(Convolution, 2, matrix=matrix(8, 8, 1, 1)),
        op(Function, 3, kind="abs"), op(Quantize, 3, grid=FEW), op(Convolution, 5, matrix=matrix(8, 8, 3, 3), **SAME),
        op(Constant, numbers=np.full((8, 1, 1), 0.5, np.float32)), op(Combine, 6, 7, kind="mul"), op(Combine, 8, 3, kind="add"),
        op(Combine, 9, 4, kind="max"),
    )  # fmt: skip
    made, x = Program(operations, SHAPE, (0.5,) * 8, (0.25,) * 8), given()
    assert torch.equal(Stock(made, integers=False)(x), run(made, x))
