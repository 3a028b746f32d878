"""Moves one after the other: the last one does the work of all."""

from __future__ import annotations

from math import prod
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings, strategies as st

from deploy.native import steps
from deploy.native.compiler import engine
from deploy.native.plan import plan
from deploy.operations.base import Codes, Matrix, Operation, Value
from deploy.operations.functions import Combine, Function
from deploy.operations.layers import Convolution, Quantize
from deploy.operations.places import Concatenate, Pad, Permute, Reshape, Slice, Upsample
from deploy.program import Program
from models.layers.quantizers.base import Steps
from tests.deploy.by_hand import op, program
from tests.deploy.native.sized import check

SHAPE = (6, 4, 5)


def moves_of(made: Program) -> list[Any]:
    found = plan(made, engine().widths)
    return [step for step in found.steps if step.operation == steps.MOVE]


def test_a_head_of_a_detector_is_no_copy(kernels: str) -> None:
    """The engine keeps channels last, which is the order that the head asks for."""
    made = program(
        op(Reshape, 0, shape=(2, 3, 20)), op(Permute, 1, axes=(2, 0, 1)), op(Reshape, 2, shape=(40, 3)), shape=SHAPE
    )
    assert not moves_of(made)
    check(made, kernels)


@pytest.mark.parametrize(("starts", "moved"), [((0, 3), 2), ((0, 2), 3)])
def test_what_two_parts_share_is_stored(starts: tuple[int, int], moved: int, kernels: str) -> None:
    """Parts without a common number are cut from what is moved, and the whole is not."""
    length = 6 - starts[1]
    cuts = [op(Slice, 1, axis=0, start=start, stop=start + length) for start in starts]
    made = program(op(Permute, 0, axes=(0, 2, 1)), *cuts, op(Combine, 2, 3, kind="add"), shape=SHAPE)
    assert len(moves_of(made)) == moved
    check(made, kernels)


def test_numbers_at_equal_distances_are_one_run(kernels: str) -> None:
    made = program(
        op(Permute, 0, axes=(1, 2, 0)),
        op(Function, 1, kind="relu"),
        op(Permute, 2, axes=(2, 1, 0)),
        op(Pad, 3, sides=(1, 0, 2, 0)),
        shape=SHAPE,
    )
    assert all(step.count <= 30 for step in moves_of(made))
    check(made, kernels)


def test_a_move_before_a_layer_is_done_by_itself(kernels: str) -> None:
    weight = Codes(np.ones((2, 5, 1, 1), np.int16), 4, 1, np.array([-2], np.int32))
    made = program(
        op(Permute, 0, axes=(2, 0, 1)), op(Quantize, 1, grid=Steps(4.0, 0.25, 0, 15)), op(Convolution, 2, matrix=Matrix(weight)), shape=SHAPE
    )  # fmt: skip
    assert len(moves_of(made)) == 1
    check(made, kernels)


@st.composite
def chains(draw: Any) -> Program:
    """Draw moves of two branches that are joined at the end."""
    made: list[Operation] = []
    shape, ends = tuple(draw(st.integers(1, 6)) for _ in range(3)), []
    for _ in range(2):
        at, now = 0, shape
        for kind in draw(st.lists(st.sampled_from([Permute, Reshape, Slice, Pad, Upsample]), max_size=4)):
            told: dict[str, Any]
            if kind is Permute:
                told = {"axes": tuple(draw(st.permutations(range(3))))}
            elif kind is Reshape:
                told = {
                    "shape": draw(
                        st.sampled_from([now[::-1], (1, now[0], now[1] * now[2]), (prod(now[:2]), 1, now[2])])
                    )
                }
            elif kind is Slice:
                axis = draw(st.integers(0, 2))
                told = {
                    "axis": axis,
                    "start": draw(st.integers(0, now[axis] - 1)),
                    "stop": now[axis],
                    "step": draw(st.integers(1, 2)),
                }
            elif kind is Pad:
                told = {"sides": tuple(draw(st.integers(0, 1)) for _ in range(4))}
            else:
                told = {"kind": "nearest", "size": (now[1] * 2, now[2] + 1)}
            made.append(op(kind, at, **told))
            at, now = len(made), made[-1].value(Value(now)).shape
        made.append(op(Reshape, at, shape=(1, 1, prod(now))))
        ends.append(len(made))
    made.append(op(Concatenate, *ends, axis=2))
    return program(*made, shape=shape)


@settings(max_examples=60, deadline=None)
@given(made=chains())
def test_any_chain_gives_what_the_reference_gives(made: Program) -> None:
    check(made, engine().kernels)


def test_a_chain_of_moves_is_one_step() -> None:
    """Were the moves not joined, three moves would be three steps."""
    turned, cut = op(Permute, 0, axes=(1, 0, 2)), op(Slice, 1, axis=1, start=1, stop=6, step=2)
    assert len(moves_of(program(turned, cut, op(Reshape, 2, shape=(60,)), shape=SHAPE))) == 1


def test_an_upsampling_copies_what_is_stored(kernels: str) -> None:
    """A shuffle of channels leaves runs of one number, which an upsampling would repeat 16 times."""
    shuffled = (op(Reshape, 0, shape=(2, 3, 20)), op(Permute, 1, axes=(1, 0, 2)), op(Reshape, 2, shape=SHAPE))
    made = program(*shuffled, op(Upsample, 3, kind="nearest", size=(16, 20)), shape=SHAPE)
    _, copy = moves_of(made)
    assert copy.count <= 16 * 20  # one run a place: channels are contiguous
    check(made, kernels)
