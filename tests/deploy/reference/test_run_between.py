"""Operations between layers by the reference: moves equal NumPy's, softmax and norms equal torch's in fp64."""

from __future__ import annotations

import weakref
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor

from deploy.operations.base import Codes, Matrix, Operation
from deploy.operations.functions import Combine, Constant, Function, Reduce, Slopes, Softmax, Standardize
from deploy.operations.layers import Affine, Convolution, Quantize
from deploy.operations.places import Concatenate, Pad, Permute, Reshape, Slice, Upsample
from deploy.operations.pools import MaxPool
from deploy.program import Program
from deploy.reference.run import run
from models.layers.quantizers.base import Steps

X = torch.randn(2, 3, 5, 4, generator=torch.Generator().manual_seed(0))
N = X.numpy()


def given(kind: type[Operation], /, *sources: int, **settings: Any) -> Operation:
    return kind(**settings, sources=sources or (0,), name=kind.__name__)


def ran(*operations: Operation, x: Tensor = X) -> Tensor:
    return run(Program(operations, tuple(x.shape[1:]), (0.5,) * x.shape[1], (0.25,) * x.shape[1]), x)


def numbers(*values: float) -> Any:
    return np.array(values, np.float32)


@pytest.mark.parametrize(
    ("operation", "expected"),
    [
        (given(Slice, axis=1, start=1, stop=5, step=2), N[:, :, 1:5:2]),
        (given(Slice, axis=0, start=2, stop=3), N[:, 2:]),
        (given(Permute, axes=(2, 0, 1)), N.transpose(0, 3, 1, 2)),
        (given(Reshape, shape=(4, 15)), N.reshape(2, 4, 15)),
        (given(Concatenate, 0, 0, 0, axis=2), np.concatenate([N] * 3, 3)),
        (given(Pad, sides=(1, 2, 0, 3), fill=0.5, channels=(1, 2)),
         np.pad(N, ((0, 0), (1, 2), (1, 2), (0, 3)), constant_values=0.5)),
        (given(Pad, sides=(-1, 2, 1, -2)), np.pad(N[:, :, 1:, :2], ((0, 0), (0, 0), (0, 2), (1, 0)))),
        (given(Pad, sides=(4, 3, 2, 3), kind="reflect"), np.pad(N, ((0, 0), (0, 0), (4, 3), (2, 3)), "reflect")),
        (given(Pad, sides=(7, 0, 1, 6), kind="replicate"), np.pad(N, ((0, 0), (0, 0), (7, 0), (1, 6)), "edge")),
        (given(Pad, sides=(5, 1, 4, 2), kind="circular"), np.pad(N, ((0, 0), (0, 0), (5, 1), (4, 2)), "wrap")),
        (given(Combine, 0, 0, kind="mul"), N * N),
        (given(Combine, 0, 0, kind="sub"), N * 0),
        (given(Affine, multiplier=numbers(2, -1, 0.5), shift=numbers(1, 2, 3)),
         N * numbers(2, -1, 0.5)[:, None, None] + numbers(1, 2, 3)[:, None, None]),
        (given(Affine, shift=numbers(1, 2, 3, 4), axis=2), N + numbers(1, 2, 3, 4)),
        (given(Affine, multiplier=numbers(-3), axis=1), N * -3),
        (given(Slopes, slope=numbers(0.5, -1, 2)), np.where(N > 0, N, N * numbers(0.5, -1, 2)[:, None, None])),
        (given(Slopes, slope=numbers(0.25)), np.where(N > 0, N, N / 4)),
        (given(Reduce, kind="max", axes=(0, 2)), N.max((1, 3), keepdims=True)),
        (given(Reduce, kind="min", axes=(1,)), N.min(2, keepdims=True)),
    ],
    ids=lambda each: getattr(each, "name", None),
)  # fmt: skip
def test_numbers_are_moved_as_numpy_moves_them(operation: Operation, expected: Any) -> None:
    assert np.array_equal(ran(operation).numpy(), expected)


@pytest.mark.parametrize("kind", ["add", "sub", "mul", "div", "max", "min"])
def test_two_values_meet_number_by_number(kind: Any) -> None:
    """The order of the two values matters; an axis of length 1 broadcasts."""
    meet = {
        "add": np.add,
        "sub": np.subtract,
        "mul": np.multiply,
        "div": np.divide,
        "max": np.maximum,
        "min": np.minimum,
    }
    row = given(Slice, axis=1, start=2, stop=3)
    column = given(Slice, axis=2, start=1, stop=2)
    found = ran(row, column, given(Combine, 1, 2, kind=kind))
    assert np.array_equal(found.numpy(), meet[kind](N[:, :, 2:3], N[:, :, :, 1:2]))


def test_a_constant_is_there_for_every_picture() -> None:
    held = numbers(1, 2, 3)[:, None, None]
    constant = Constant(held, sources=(), name="constant")
    found = ran(constant, given(Combine, 0, 1, kind="div"), given(Concatenate, 2, 2, axis=0))
    assert np.array_equal(found.numpy(), np.concatenate([N / held] * 2, 1))


@pytest.mark.parametrize(
    ("operation", "expected"),
    [
        (given(Reduce, kind="mean", axes=(1, 2)), X.double().mean((2, 3), keepdim=True)),
        (given(Reduce, kind="sum", axes=(0, 2)), X.double().sum((1, 3), keepdim=True)),
        (given(Reduce, kind="mean", axes=(0,)), X.double().mean(1, keepdim=True)),
        (given(Softmax, axis=0), X.double().softmax(1)),
        (given(Softmax, axis=2), X.double().softmax(3)),
        (given(Softmax, axis=0, log=True), X.double().log_softmax(1)),
        (given(Softmax, axis=2, log=True), X.double().log_softmax(3)),
        (given(Standardize, axes=(2,), eps=1e-5), torch.layer_norm(X.double(), (4,))),
        (given(Standardize, axes=(0, 1, 2), eps=0.5), torch.layer_norm(X.double(), (3, 5, 4), eps=0.5)),
        (given(Standardize, axes=(1, 2), eps=1e-3), torch.group_norm(X.double(), 3, eps=1e-3)),
    ],
    ids=lambda each: getattr(each, "name", None),
)
def test_sums_along_axes_are_those_of_torch_in_fp64(operation: Operation, expected: Tensor) -> None:
    found = ran(operation)
    assert found.dtype == torch.float32
    torch.testing.assert_close(found.double(), expected, rtol=1e-7, atol=1e-7)


def test_a_softmax_of_far_numbers_is_finite() -> None:
    x = torch.tensor([1e30, -1e30, 1e30, 0]).reshape(1, 4, 1, 1)
    assert ran(given(Softmax, axis=0), x=x).flatten().tolist() == [0.5, 0, 0.5, 0]


def test_a_mean_is_summed_in_fp64_and_rounded_once() -> None:
    """In fp32, 2^24 + 1 + 1 + ... stays 2^24."""
    x = torch.tensor([2.0**24] + [1] * 7).reshape(1, 1, 8, 1)
    assert ran(given(Reduce, kind="sum", axes=(1,)), x=x).item() == 2**24 + 8  # 2^24 + 7 is a tie, rounded to even
    assert ran(given(Reduce, kind="mean", axes=(1,)), x=x).item() == 2**21 + 1


@pytest.mark.parametrize(
    ("before", "after", "places"),
    [
        (26, 64, {30: 12, 31: 12, 32: 13, 33: 13, 34: 13, 63: 25}),
        (20, 6, {0: 0, 1: 3, 2: 6, 3: 10, 4: 13, 5: 16}),
        (3, 6, {0: 0, 1: 0, 2: 1, 3: 1, 4: 2, 5: 2}),
        (5, 5, {0: 0, 4: 4}),
    ],
)
def test_the_nearest_number_before_by_hand(before: int, after: int, places: dict[int, int]) -> None:
    rows = torch.arange(before, dtype=torch.float32).reshape(1, 1, before, 1).expand(1, 1, before, 2)
    found = ran(given(Upsample, kind="nearest", size=(after, 2)), x=rows)[0, 0]
    assert {place: found[place, 1].item() for place in places} == places
    turned = ran(given(Upsample, kind="nearest", size=(2, after)), x=rows.transpose(2, 3))
    assert torch.equal(turned[0, 0].T, found)


@pytest.mark.parametrize("align", [False, True])
@pytest.mark.parametrize("size", [(10, 8), (3, 9), (7, 1), (5, 4)])
def test_bilinear_numbers_are_those_of_their_formula(size: tuple[int, int], align: bool) -> None:
    """Each direction is interpolated separately, weighted by the distance to the two neighbours in the source."""
    x = N.astype(np.float64)
    for axis, new in zip((2, 3), size, strict=True):
        old = x.shape[axis]
        step = (old - 1) / max(new - 1, 1) if align else old / new
        at = np.arange(new) * step if align else np.maximum((np.arange(new) + 0.5) * step - 0.5, 0)
        low = np.minimum(np.floor(at).astype(int), old - 1)
        share = (at - low).reshape(-1, *(1,) * (3 - axis))
        x = np.take(x, low, axis) * (1 - share) + np.take(x, np.minimum(low + 1, old - 1), axis) * share
    found = ran(given(Upsample, kind="bilinear", size=size, align_corners=align))
    assert found.dtype == torch.float32
    np.testing.assert_allclose(found.numpy(), x, rtol=0, atol=1e-6)


@pytest.mark.parametrize(
    ("settings", "expected"),
    [
        ({"kernel": (2, 2), "stride": (2, 2)}, [[6, 8], [14, 16]]),
        ({"kernel": (3, 3), "stride": (2, 2), "padding": (1, 1, 1, 1)}, [[6, 8], [14, 16]]),
        ({"kernel": (3, 3), "stride": (3, 3), "ceil": True}, [[11, 12], [15, 16]]),
        ({"kernel": (2, 2), "stride": (1, 1), "dilation": (2, 3)}, [[12], [16]]),
        ({"kernel": (2, 2), "stride": (3, 3), "padding": (1, 0, 0, 1)}, [[2, 4], [14, 16]]),
    ],
)
@pytest.mark.parametrize("below", [0, 100])
def test_largest_numbers_by_hand(below: int, settings: Any, expected: list[list[int]]) -> None:
    """Negative numbers work, too: the border is lower than all numbers, not 0."""
    x = torch.arange(1, 17, dtype=torch.float32).reshape(1, 1, 4, 4) - below
    found = ran(given(MaxPool, **settings), x=x)[0, 0] + below
    assert found.tolist() == expected


@pytest.mark.parametrize("kind", ["reflect", "replicate", "circular", "constant"])
def test_a_border_of_codes_holds_codes(kind: Any) -> None:
    """Padding codes gives the codes of the padded numbers; a zero border has code 0, wherever 0 is on the grid."""
    grid = Steps(2.0, 0.5, -3, 12)
    codes = np.clip(np.rint(N * 2), -3, 12).astype(int)
    mode = {"replicate": "edge", "circular": "wrap"}.get(kind, kind)
    wanted = np.pad(codes, ((0, 0), (0, 0), (2, 1), (0, 3)), mode).sum(1, keepdims=True)
    ones = Matrix(Codes(np.ones((1, 3, 1, 1), np.int16), 2, 1, np.array([0], np.int32)))
    found = ran(
        given(Quantize, grid=grid), given(Pad, 1, sides=(2, 1, 0, 3), kind=kind), given(Convolution, 2, matrix=ones)
    )
    assert np.array_equal(found.numpy(), wanted)


def test_a_value_is_held_until_its_last_reader_and_no_longer() -> None:
    """Value 1 is read at once, twice, and late; the values of the chain between are freed after their reader."""
    chain = [given(Function, n, kind="abs") for n in range(1, 10)]
    operations = (given(Affine, shift=numbers(1)), *chain, given(Combine, 1, 1, kind="mul"), given(Combine, 10, 11, kind="add"),
                  given(Combine, 12, 0, kind="sub"))  # fmt: skip
    held: dict[int, weakref.ref[Tensor]] = {}
    alive: list[set[int]] = []

    def seen(number: int, value: Tensor) -> None:
        held[number] = weakref.ref(value)
        alive.append({n for n, reference in held.items() if reference() is not None})

    found = run(Program(operations, (3, 5, 4), (0.5,) * 3, (0.25,) * 3), X, seen)
    assert np.array_equal(found.numpy(), (np.abs(N + 1) + (N + 1) * (N + 1)) - N)
    assert alive[8] == {1, 8, 9}
    assert alive[-1] == {12, 13}
