"""Programs: the values of a small one, and parts that do not fit together, refused with the operation's name."""

from __future__ import annotations

import re

import numpy as np
import pytest

from deploy.operations.base import FARTHEST, Codes, Matrix, Operation, Value
from deploy.operations.functions import Combine, Constant, Function, Reduce
from deploy.operations.layers import Convolution, Linear, Quantize
from deploy.operations.places import Concatenate, Pad, Reshape, Upsample
from deploy.operations.pools import AdaptivePool, MaxPool
from deploy.program import MOST_OPERATIONS, Program
from models.layers.quantizers.base import Signs, Steps

BYTES = Steps(255.0, 1 / 255, 0, 255)


def signs(*shape: int) -> Codes:
    return Codes(np.ones(shape, np.int16), 2, 2, np.array([-1], np.int32))


def numbers(*shape: int) -> np.ndarray:
    return np.ones(shape, np.float32)


def program(*operations: Operation, picture: tuple[int, ...] = (3, 8, 8), **changes: tuple[float, ...]) -> Program:
    return Program(operations, picture, **{"mean": (0.5,) * picture[0], "std": (0.25,) * picture[0], **changes})


def relu(source: int, name: str = "act") -> Function:
    return Function("relu", sources=(source,), name=name)


def test_values_by_hand() -> None:
    found = program(
        Quantize(BYTES, sources=(0,), name="conv"),
        Convolution(Matrix(signs(4, 3, 3, 3)), (2, 2), sources=(1,), name="conv"),
        relu(2),
        MaxPool((2, 2), (1, 1), sources=(3,), name="pool"),
        Combine("add", sources=(4, 4), name="sum"),
        Reduce("mean", (1, 2), sources=(5,), name="mean"),
        Reshape((4,), sources=(6,), name="mean"),
        Quantize(Signs(), sources=(7,), name="head"),
        Linear(Matrix(signs(10, 4)), sources=(8,), name="head"),
    )
    assert found.values == (
        Value((3, 8, 8)),
        Value((3, 8, 8), BYTES),
        Value((4, 3, 3)),
        Value((4, 3, 3)),
        Value((4, 2, 2)),
        Value((4, 2, 2)),
        Value((4, 1, 1)),
        Value((4,)),
        Value((4,), Signs()),
        Value((10,)),
    )
    assert found.answer == (10,)


CODED = Quantize(BYTES, sources=(0,), name="codes")


@pytest.mark.parametrize(
    ("operations", "error"),
    [
        ([relu(0), relu(2, "late")], "operation 1 (Function late): it reads values (2,), not from 0 to 1"),
        ([relu(1, "itself")], "operation 0 (Function itself): it reads values (1,), not from 0 to 0"),
        ([relu(-1, "before")], "operation 0 (Function before): it reads values (-1,)"),
        ([Function("relu", sources=(), name="none")], "operation 0 (Function none): it reads 0 values"),
        ([Function("relu", sources=(0, 0), name="two")], "operation 0 (Function two): it reads 2 values"),
        ([Combine("add", sources=(0,), name="one")], "operation 0 (Combine one): it reads 1 values"),
        ([Constant(numbers(1), sources=(0,), name="same")], "operation 0 (Constant same): it reads 1 values"),
        ([Concatenate(0, sources=(), name="cat")], "operation 0 (Concatenate cat): it reads 0 values"),
        ([CODED, relu(1)], "operation 1 (Function act): it reads codes, which only layers, Pad and Decode can read"),
        ([CODED, MaxPool((2, 2), (2, 2), sources=(1,), name="pool")], "operation 1 (MaxPool pool): it reads codes"),
        ([CODED, Combine("add", sources=(0, 1), name="sum")], "operation 1 (Combine sum): it reads codes"),
        ([CODED, Quantize(BYTES, sources=(1,), name="again")], "operation 1 (Quantize again): it reads codes"),
        ([CODED], "the answer is in codes"),
        ([CODED, Pad((1, 1, 1, 1), sources=(1,), name="pad")], "the answer is in codes"),
        ([relu(0), Linear(Matrix(numbers(2, 5)), sources=(1,), name="fc")], "operation 1 (Linear fc): a weight of"),
        ([relu(0, "n" * 1000), relu(7, "n" * 1000)], f"operation 1 (Function {'n' * 60}): it reads"),
        ([Upsample("nearest", (2**14, 2**14), sources=(0,), name="up")], "operation 0 (Upsample up): a value of shape"),
        ([Constant(numbers(2**14 + 1, 1), sources=(), name="a"), Constant(numbers(1, 2**14), sources=(), name="b"),
          Combine("mul", sources=(1, 2), name="all")],
         f"operation 2 (Combine all): a value of shape {(2**14 + 1, 2**14)}"),
        ([Constant(numbers(*(1,) * 9), sources=(), name="axes")],
         "operation 0 (Constant axes): a value of shape (1, 1, 1, 1, 1, 1, ...)"),
        ([Reshape((192,) + (1,) * 8, sources=(0,), name="axes")], "operation 0 (Reshape axes): a value of shape (3, 8, 8)"),
        ([Function("leaky_relu", (1e39,), sources=(0,), name="act")], "leaky_relu with the settings (1e+39,)"),  # fp32: inf
        ([Quantize(Signs(1e-60), sources=(0,), name="codes")], "operation 0 (Quantize codes): codes at +-1e-60"),  # fp32: 0
        ([], "0 operations"),
        ([relu(0)] * (MOST_OPERATIONS + 1), f"{MOST_OPERATIONS + 1} operations"),
    ],
)  # fmt: skip
def test_what_does_not_fit_is_refused_by_name(operations: list[Operation], error: str) -> None:
    with pytest.raises(ValueError, match=re.escape(error)):
        program(*operations)


@pytest.mark.parametrize(
    ("operations", "number"),
    [
        ([relu(0), relu(0)], 0),
        ([relu(0), relu(1), relu(0)], 1),  # its reader is not read itself
        ([relu(0), relu(0), relu(0)], 0),  # the first of two
        ([relu(0), relu(1), relu(1), relu(2)], 2),
        ([CODED, relu(0)], 0),
        ([Constant(numbers(1), sources=(), name="one"), relu(0)], 0),
        ([relu(0), Constant(numbers(1), sources=(), name="one")], 0),
    ],
)
def test_values_that_nothing_reads_are_refused(operations: list[Operation], number: int) -> None:
    with pytest.raises(ValueError, match=f"^operation {number}: no operation reads its value$"):
        program(*operations)


def test_a_value_may_be_read_often_and_the_picture_never() -> None:
    assert program(relu(0), relu(1), relu(1), Combine("add", sources=(2, 3), name="sum")).answer == (3, 8, 8)
    assert program(relu(0), Combine("mul", sources=(1, 1), name="square")).answer == (3, 8, 8)
    assert program(Constant(numbers(2), sources=(), name="same")).answer == (2,)


@pytest.mark.parametrize(
    ("name", "told"),
    [
        ("an\nact\r\x1b[2J", r"an\nact\r\x1b[2J"),
        ("é\u2028\ud800", r"\xe9\u2028\ud800"),
        ("n" * 61, "n" * 60),
        ("conv1", "conv1"),
    ],
)
def test_a_name_is_told_in_one_short_line(name: str, told: str) -> None:
    with pytest.raises(ValueError) as fault:
        program(relu(3, name))
    assert str(fault.value).startswith(f"operation 0 (Function {told}): it reads values (3,)")
    assert str(fault.value).isprintable()
    assert len(str(fault.value)) < 300


@pytest.mark.parametrize(
    ("picture", "changes", "error"),
    [
        ((8, 8), {}, "pictures of shape (8, 8)"),
        ((1, 3, 8, 8), {}, "pictures of shape (1, 3, 8, 8)"),
        ((3, 0, 8), {}, "pictures of shape (3, 0, 8)"),
        ((3, 8, FARTHEST + 1), {}, f"pictures of shape (3, 8, {FARTHEST + 1})"),
        ((1, FARTHEST, FARTHEST), {}, f"pictures of shape (1, {FARTHEST}, {FARTHEST})"),  # 4 GiB each
        ((1, 2**14, 2**14 + 1), {}, f"pictures of shape (1, {2**14}, {2**14 + 1})"),
        ((3, 2**14, 2**13), {}, f"pictures of shape (3, {2**14}, {2**13})"),
        ((1,) * 10_000, {}, "pictures of shape (1, 1, 1, 1, 1, 1, ...)"),
        ((3, 8, 8), {"mean": (0.5,) * 2}, "mean (0.5, 0.5) and std (0.25, 0.25, 0.25) of 3 channels"),
        ((3, 8, 8), {"std": (0.25,)}, "and std (0.25,) of 3 channels"),
        ((1, 8, 8), {"std": (0.0,)}, "and std (0.0,) of 1 channels"),
        ((1, 8, 8), {"std": (-1.0,)}, "and std (-1.0,)"),
        ((1, 8, 8), {"std": (float("nan"),)}, "and std (nan,)"),
        ((1, 8, 8), {"std": (float("inf"),)}, "and std (inf,)"),
        ((1, 8, 8), {"mean": (float("nan"),)}, "mean (nan,)"),
        ((1, 8, 8), {"mean": (float("-inf"),)}, "mean (-inf,)"),
        ((1, 8, 8), {"mean": (1e300,)}, "mean (1e+300,)"),  # infinite in fp32
        ((1, 8, 8), {"std": (1e-300,)}, "and std (1e-300,)"),  # 0 in fp32
    ],
)
def test_pictures_out_of_range_are_refused(picture: tuple[int, ...], changes: dict, error: str) -> None:
    with pytest.raises(ValueError, match=re.escape(error)):
        program(AdaptivePool("mean", (1, 1), sources=(0,), name="pool"), picture=picture, **changes)


def test_gray_and_the_largest_pictures_are_taken() -> None:
    assert program(relu(0), picture=(1, 28, 28), mean=(0.0,), std=(1.0,)).answer == (1, 28, 28)
    assert program(relu(0), picture=(1, 2**14, 2**14)).answer == (1, 2**14, 2**14)  # 2^28 numbers, exactly the limit


def test_values_of_eight_axes_are_taken() -> None:
    assert program(Reshape((192,) + (1,) * 7, sources=(0,), name="axes")).answer == (192,) + (1,) * 7
