"""Layers of any number of channels on pictures of any size give the reference's numbers and write no byte beyond the arena."""

from __future__ import annotations

import itertools

import pytest
from hypothesis import given, settings

from deploy.native import steps
from deploy.native.plan import plan
from deploy.native.steps import Widths
from deploy.program import Program
from tests.deploy.native.sized import FAST, chained, check, depthwise, programs


@settings(max_examples=30, derandomize=True, **FAST)
@given(made=programs())
def test_a_layer_of_any_size(made: Program, kernels: str) -> None:
    check(made, kernels)


@settings(max_examples=80, derandomize=True, **FAST)
@given(made=depthwise())
def test_a_depthwise_layer_of_any_size(made: Program, kernels: str) -> None:
    check(made, kernels)


@settings(max_examples=40, derandomize=True, **FAST)
@given(made=chained())
def test_layers_of_any_size_on_signs(made: Program, kernels: str) -> None:
    check(made, kernels)


def test_the_drawn_depthwise_layers_reach_each_kernel() -> None:
    """Places and rows; codes and numbers; one to three planes of weights; one and several parts."""
    wide, reached = Widths(16, 3, 32, 64, True), set()

    @settings(max_examples=80, derandomize=True, database=None, **FAST)
    @given(made=depthwise())
    def count(made: Program) -> None:
        for step in plan(made, wide).steps:
            if step.operation == steps.DEPTHWISE and step.what == 2:
                reached.add((step.line > 1, bool(step.coded), step.parts > 1))
                reached.add(step.planes)

    count()
    assert reached >= {*itertools.product([False, True], repeat=3), 1, 2, 3}


def test_the_drawn_layers_on_signs_reach_threes_of_words() -> None:
    """Bits and numbers as results; with and without words beyond the threes."""
    wide, reached = Widths(16, 3, 32, 64, True), set()

    @settings(max_examples=40, derandomize=True, database=None, **FAST)
    @given(made=chained())
    def count(made: Program) -> None:
        for step in plan(made, wide).steps:
            if step.operation == steps.SIGNS and step.threes:
                reached.add((step.result.kind == steps.BITS, step.count > step.threes))

    count()
    assert reached == {*itertools.product([False, True], repeat=2)}


@pytest.mark.slow
@settings(max_examples=1000, **FAST)
@given(made=depthwise())
def test_a_thousand_depthwise_layers(made: Program, kernels: str) -> None:
    check(made, kernels)


@pytest.mark.slow
@settings(max_examples=2000, **FAST)
@given(made=programs())
def test_two_thousand_layers(made: Program, kernels: str) -> None:
    check(made, kernels)


@pytest.mark.slow
@settings(max_examples=1000, **FAST)
@given(made=chained())
def test_a_thousand_layers_on_signs(made: Program, kernels: str) -> None:
    check(made, kernels)
