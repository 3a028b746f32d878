"""The stock PyTorch executor on programs made by hand: codes equal the reference's or their neighbours, all else is exact."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch

from deploy.executors import stock
from deploy.executors.stock import Stock, _runs, _signs
from deploy.operations.base import Matrix, Operation
from deploy.operations.functions import Combine, Constant, Function
from deploy.operations.layers import Convolution, Decode, Linear, Quantize
from deploy.operations.places import Reshape
from deploy.program import Program
from deploy.reference.run import codes_of, run
from models.layers.quantizers.base import Signs, Steps
from tests.deploy.layer_chains import (
    BYTES,
    CODE,
    FEW,
    FEWER,
    FLAT,
    POSITIVE,
    PROGRAMS,
    RELU,
    SAME,
    SHAPE,
    Said,
    codes,
    conv,
    given,
    linear,
    matrix,
    pool,
    program,
    quantize,
)


@pytest.mark.usefixtures("_int8")
@pytest.mark.parametrize("name", PROGRAMS)
def test_codes_are_those_of_the_reference_or_next_to_them(name: str) -> None:
    made, x = program(*PROGRAMS[name]), given()
    executor, expected = Stock(made), run(made, x)
    assert executor.how == "int8 convolutions of oneDNN"
    assert any(len(step.covers) > 1 for step in executor.steps) == (
        "linear" not in name
    )  # the following operations are fused
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
    """All sums are integers. The border is 0, which the bytes of signs can hold."""
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
    """Such layers come from networks in which only activations are quantized."""
    real = np.random.default_rng(0).normal(size=(12, 8, 3, 3) if kind is Convolution else (12, 504)).astype(np.float32)
    settings = {"matrix": Matrix(real), **(SAME if kind is Convolution else {})}
    made, x = program(*([] if kind is Convolution else [FLAT]), quantize(grid), (kind, settings)), given()
    torch.testing.assert_close(Stock(made)(x), run(made, x), rtol=1e-5, atol=1e-3)


@pytest.mark.usefixtures("_int8")
@pytest.mark.parametrize("bias", [0, 2**30])
def test_sums_above_what_fp32_counts(bias: int) -> None:
    """Sums are added in int32: in fp32 large terms would absorb small ones."""
    weight = np.where(np.arange(4000) < 2000, 63, -63) * np.ones((3, 1), int)
    large, shape = Matrix(codes(weight), None, np.array([bias, -bias, 5], np.int32)), (4, 40, 25)
    made = program((Reshape, {"shape": (4000,)}), CODE, (Linear, {"matrix": large}), shape=shape)
    x = given(shape).abs() * 3
    torch.testing.assert_close(Stock(made)(x), run(made, x), rtol=1e-6, atol=0)


@pytest.mark.usefixtures("_int8")
@pytest.mark.parametrize(("low", "high"), [(-1000, 1000), (2, 7), (-9, -2)])
def test_codes_that_are_no_bytes_about_0(low: int, high: int) -> None:
    """No quantizer of the toolkit has such a grid, but a packed file may."""
    grid = Steps(9.0, 1 / 9, low, high)
    made, x = program(quantize(grid), conv(12, 8, 3, 3, **SAME), quantize(grid)), given() * 30
    assert torch.equal(Stock(made)(x), run(made, x))


@pytest.mark.usefixtures("_int8")
@pytest.mark.parametrize("number", [5.0, 5e7, 6e7, 1e30, 3e38])
def test_numbers_beyond_the_last_code_get_that_one(number: float) -> None:
    """The distance does not matter: 6e7 is more than 2^31 steps of 1 / 40 away."""
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


@pytest.mark.parametrize("grid", [Signs(), Signs(0.5), Signs(0.0)], ids=str)
def test_bytes_of_signs_are_their_codes_plus_1(grid: Signs) -> None:
    x = torch.tensor([-np.inf, -1, -0.5, np.nextafter(np.float32(-0.5), -1), -0.0, 0.0, 1e-45, 0.5, np.inf, np.nan])
    x = x.float().reshape(1, 10, 1, 1)
    assert torch.equal(_signs(x.clone(), grid).float(), codes_of(x, grid) + 1)


@pytest.mark.parametrize(
    ("channels", "runs"),
    [
        ([0, 1, 2], [(0, 3)]), ([0, 1, 2, 0, 1, 2, 1], [(0, 3), (0, 3), (1, 2)]), ([4], [(4, 5)]),
        ([3, 2, 1], [(3, 4), (2, 3), (1, 2)]), ([0, 2, 3, 3], [(0, 1), (2, 4), (3, 4)]),
    ],
)  # fmt: skip
def test_runs_of_channels(channels: list[int], runs: list[tuple[int, int]]) -> None:
    assert _runs(np.array(channels)) == runs


@pytest.mark.usefixtures("_int8")
def test_a_weight_is_laid_out_once_for_each_shape_of_its_input(monkeypatch: pytest.MonkeyPatch) -> None:
    """For another shape than the one it was laid out for, oneDNN may do it again in each call."""
    shapes = []
    made = program(CODE, conv(12, 8, 3, 3, **SAME), RELU, CODE)
    executor, whole = Stock(made), stock.QConv
    monkeypatch.setattr(stock, "QConv", lambda *told, **more: shapes.append(more["shape"]) or whole(*told, **more))
    x = given()
    for count in (1, 2, 1, 2, 1):
        executor(x[:count])
    assert [shape[0] for shape in shapes] == [1, 1, 2, 2]  # two layers
