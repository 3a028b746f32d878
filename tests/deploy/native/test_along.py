"""Products of values, and operations along axes: the engine has steps for them, and every number equals the reference's."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from deploy.native.executor import Native
from deploy.operations.base import Operation
from deploy.operations.functions import Combine, Constant, Product, Reduce, Softmax, Standardize
from deploy.operations.layers import Affine
from deploy.operations.places import Permute, Reshape
from deploy.reference.run import run
from tests.deploy.by_hand import given, op, program, reals
from tests.deploy.native.bitwise import KINDS, assert_equal, same

SHAPES: dict[str, tuple[int, ...]] = {
    "a row": (147,),
    "a table": (21, 7),
    "a picture": (3, 7, 7),
    "few places": (49, 3, 1),
    "stacks": (3, 1, 7, 7),
}


def shaped(shape: tuple[int, ...], *made: Operation) -> Any:
    """Return a program of operations on value 1, which has this shape."""
    return program(op(Reshape, 0, shape=shape), *made, shape=(3, 7, 7))


REDUCED = {
    "a row": [(0,)], "a table": [(0,), (1,)], "a picture": [(0,), (1,), (2,), (1, 2)], "few places": [(0,), (1,), (2,)],
    "stacks": [(2,), (3,), (2, 3)],
}  # fmt: skip


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize(("name", "axes"), [(name, axes) for name, each in REDUCED.items() for axes in each])
def test_reductions(name: str, axes: tuple[int, ...], kind: str, kernels: str) -> None:
    assert_equal(shaped(SHAPES[name], op(Reduce, 1, kind=kind, axes=axes)), kernels)


@pytest.mark.parametrize(
    ("name", "axes"),
    [("a table", (0, 1)), ("a picture", (0, 1)), ("a picture", (0, 1, 2)), ("stacks", (0,)), ("stacks", (1, 3))],
)
@pytest.mark.parametrize("kind", KINDS)
def test_reductions_over_any_axes(name: str, axes: tuple[int, ...], kind: str, kernels: str) -> None:
    assert_equal(shaped(SHAPES[name], op(Reduce, 1, kind=kind, axes=axes)), kernels)


ALONG_CHANNELS = [("a row", 0), ("a table", 1), ("a picture", 0), ("few places", 0)]


@pytest.mark.parametrize(("name", "axis"), ALONG_CHANNELS)
def test_norms(name: str, axis: int, kernels: str) -> None:
    assert_equal(shaped(SHAPES[name], op(Standardize, 1, axes=(axis,), eps=1e-5)), kernels)


@pytest.mark.parametrize("log", [False, True])
@pytest.mark.parametrize(("name", "axis"), ALONG_CHANNELS)
def test_softmax(name: str, axis: int, log: bool, kernels: str) -> None:
    assert_equal(shaped(SHAPES[name], op(Softmax, 1, axis=axis, log=log)), kernels)


@pytest.mark.parametrize("name", SHAPES)
def test_one_factor_for_all(name: str, kernels: str) -> None:
    made = op(Affine, 1, multiplier=reals(1), shift=reals(1) + 1, axis=0)
    assert_equal(shaped(SHAPES[name], made), kernels)


PRODUCTS = {
    "tables": ((7, 21), (21, 7), (), ()), "a row and a column": ((1, 147), (147, 1), (), ()), "columns and rows": ((147, 1), (1, 147), (), ()),
    "many columns": ((3, 49), (49, 70), (), ()), "stacks": ((7, 7), (7, 7), (3,), (3,)), "one of a stack": ((49, 1), (1, 49), (3,), (1,)),
    "of two axes": ((3, 7), (7, 5), (7, 1), (7, 1)), "broadcast both": ((7, 7), (7, 2), (3, 1), (1, 5)),
    "two vectors": ((21, 7), (7, 9), (), ()), "three vectors": ((21, 7), (7, 24), (), ()), "four vectors": ((21, 7), (7, 57), (), ()),
}  # fmt: skip


@pytest.mark.parametrize("name", PRODUCTS)
@pytest.mark.parametrize("turned", [False, True])
def test_products(name: str, turned: bool, kernels: str) -> None:
    """The value is one factor, and a constant the other."""
    left, right, one, other = PRODUCTS[name]
    if turned:  # (A B)^T = B^T A^T
        made = [
            op(Permute, 1, axes=(*range(len(one)), len(one) + 1, len(one))),
            op(Constant, numbers=reals(*other, right[1], right[0])),
            op(Product, 3, 2),
        ]
    else:
        made = [op(Constant, numbers=reals(*other, *right)), op(Product, 1, 2)]
    assert_equal(shaped((*one, *left), *made), kernels)


def test_a_value_times_itself(kernels: str) -> None:
    assert_equal(shaped((3, 7, 7), op(Product, 1, 1), op(Combine, 1, 2, kind="add")), kernels)


@pytest.mark.parametrize("kind", KINDS)
def test_the_sum_of_numbers_that_are_all_minus_0(kind: str, kernels: str) -> None:
    zeros = np.full((5, 9), -0.0, np.float32)
    made = program(
        op(Constant, numbers=zeros),
        op(Reduce, 1, kind=kind, axes=(1,)),
        op(Standardize, 1, axes=(1,), eps=1.0),
        op(Combine, 3, 2, kind="add"),
        shape=(3, 7, 7),
    )
    x = given(made, 1)
    assert same(Native(made, kernels)(x), run(made, x))
