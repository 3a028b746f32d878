"""Values of many axes: the engine keeps rows in order or maps channels last, and every number equals the reference's."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from deploy.native import steps
from deploy.native.compiler import engine
from deploy.native.plan import plan
from deploy.operations.base import Matrix, Operation
from deploy.operations.functions import Combine, Constant, Function, Product, Reduce, Slopes, Softmax, Standardize
from deploy.operations.layers import Affine, Linear, Transposed
from deploy.operations.places import Concatenate, Permute, Reshape, Slice
from deploy.operations.pools import MaxPool
from deploy.program import Program
from tests.deploy.by_hand import op, program, reals
from tests.deploy.native.bitwise import KINDS, assert_equal
from tests.deploy.native.sized import check

PICTURE = (41, 3, 5)
"""Channels for 32 results side by side, for 8, and one that is left."""
STACKS = (5, 3, 3, 13)


def counted(made: Program, kind: int) -> int:
    return sum(step.operation == kind for step in plan(made, engine().widths).steps)


def of(shape: tuple[int, ...], maps: bool, *made: Operation) -> Program:
    """Return a program of operations on value 3, which has this shape.

    Args:
        maps: whether it comes from a pool, which gives channels last; otherwise it comes from a table.
    """
    rows = int(np.prod(shape[:-1]))
    first = op(MaxPool, 0, kernel=(1, 1), stride=(1, 1)) if maps else op(Reshape, 0, shape=(rows, shape[-1]))
    picture = (rows // shape[-2], *shape[-2:])
    return program(
        first, op(Function, 1, kind="leaky_relu", settings=(0.5,)), op(Reshape, 2, shape=shape), *made, shape=picture
    )


AXES = [
    (PICTURE, (1, 2)),
    (PICTURE, (0, 2)),
    (PICTURE, (2,)),
    (PICTURE, (0, 1, 2)),
    (STACKS, (0,)),
    (STACKS, (1, 3)),
    (STACKS, (2, 3)),
]
both = pytest.mark.parametrize("maps", [False, True])


@both
@pytest.mark.parametrize(("shape", "axes"), AXES)
def test_norms_and_reductions_over_any_axes(
    shape: tuple[int, ...], axes: tuple[int, ...], maps: bool, kernels: str
) -> None:
    normed = op(Standardize, 3, axes=axes, eps=1e-5)
    assert_equal(of(shape, maps, normed), kernels)
    for kind in KINDS:
        assert_equal(of(shape, maps, op(Reduce, 3, kind=kind, axes=axes)), kernels)


@both
@pytest.mark.parametrize("log", [False, True])
@pytest.mark.parametrize(("shape", "axis"), [(PICTURE, 1), (PICTURE, 2), (STACKS, 0), (STACKS, 3)])
def test_softmax_along_any_axis(shape: tuple[int, ...], axis: int, log: bool, maps: bool, kernels: str) -> None:
    assert_equal(of(shape, maps, op(Softmax, 3, axis=axis, log=log)), kernels)


@both
@pytest.mark.parametrize("shape", [PICTURE, STACKS])
def test_factors_along_any_axis(shape: tuple[int, ...], maps: bool, kernels: str) -> None:
    for axis, size in enumerate(shape):
        assert_equal(of(shape, maps, op(Affine, 3, multiplier=reals(size), shift=reals(size), axis=axis)), kernels)
        assert_equal(of(shape, maps, op(Affine, 3, shift=reals(size), axis=axis)), kernels)
    assert_equal(of(shape, maps, op(Slopes, 3, slope=reals(shape[0]))), kernels)


@both
@pytest.mark.parametrize("short", [(5, 1, 3, 13), (1, 3, 1, 1), (5, 1, 1, 13), (1, 1, 3, 1), (5, 3, 3, 1)])
def test_values_that_broadcast(short: tuple[int, ...], maps: bool, kernels: str) -> None:
    for kind in ("sub", "div", "max"):
        assert_equal(of(STACKS, maps, op(Constant, numbers=reals(*short) + 3), op(Combine, 3, 4, kind=kind)), kernels)


@pytest.mark.parametrize(("groups", "outputs"), [(1, 70), (5, 2), (10, 1)])
def test_transposed_layers(groups: int, outputs: int, kernels: str) -> None:
    layer = op(
        Transposed, 0, weight=reals(10, outputs, 3, 2), shift=reals(groups * outputs), stride=(2, 1), padding=(1, 0), more=(1, 0),
        dilation=(1, 2), groups=groups,
    )  # fmt: skip
    assert_equal(program(layer, shape=(10, 5, 7)), kernels)


TOKENS, HEADS, SIZE = 35, 3, 7


def attention() -> Program:
    """Return attention as torchvision's Swin writes it, between maps and maps."""
    width = HEADS * SIZE
    made: list[Any] = [
        op(Reshape, 0, shape=(width, TOKENS)), op(Permute, 1, axes=(1, 0)),
        op(Linear, 2, matrix=Matrix(reals(3 * width, width))), op(Reshape, 3, shape=(TOKENS, 3, HEADS, SIZE)),
        op(Permute, 4, axes=(1, 2, 0, 3)), *(op(Slice, 5, axis=0, start=n, stop=n + 1) for n in range(3)),
        *(op(Reshape, n, shape=(HEADS, TOKENS, SIZE)) for n in (6, 7, 8)), op(Permute, 10, axes=(0, 2, 1)), op(Product, 9, 12),
        op(Affine, 13, multiplier=reals(1)), op(Reshape, 14, shape=(HEADS * TOKENS, TOKENS)), op(Softmax, 15, axis=1),
        op(Reshape, 16, shape=(HEADS, TOKENS, TOKENS)), op(Product, 17, 11), op(Permute, 18, axes=(1, 0, 2)),
        op(Reshape, 19, shape=(TOKENS, width)), op(Permute, 20, axes=(1, 0)), op(Reshape, 21, shape=(width, 5, 7)),
    ]  # fmt: skip
    return program(*made, shape=(width, 5, 7))


def test_products_read_heads_where_a_layer_has_written_them(kernels: str) -> None:
    """Only the heads of the result are moved beside each other; maps whose channels are contiguous are rows of tokens."""
    made = attention()
    assert counted(made, steps.MOVE) == 1
    assert counted(made, steps.REFERENCE) == 0
    check(made, kernels)


def test_a_factor_at_unequal_distances_is_moved(kernels: str) -> None:
    """Rows of two parts that are joined behind each other are contiguous again once they are stored."""
    made = program(
        op(Concatenate, 0, 0, axis=2), op(Reshape, 1, shape=(3, 4, 10)), op(Slice, 2, axis=2, start=0, stop=8),
        op(Reshape, 3, shape=(3, 8, 4)), op(Product, 3, 4), shape=(3, 4, 5),
    )  # fmt: skip
    check(made, kernels)


FUNCTIONS = ("elu", "exp", "gelu", "gelu_tanh", "mish", "sigmoid", "silu", "tanh")


@pytest.mark.parametrize("kind", FUNCTIONS)
def test_functions_of_any_count_of_numbers(kind: str, kernels: str) -> None:
    for count in (1, 7, 8, 31, 32, 33, 71):
        made = program(op(Function, 0, kind=kind, settings=(0.7,) if kind == "elu" else ()), shape=(1, 1, count))
        check(made, kernels)
