"""Layers of any number of channels on pictures of any size give the reference's numbers and write no byte beyond the arena."""

from __future__ import annotations

import itertools
from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given, settings

from deploy.native import steps
from deploy.native.executor import Native
from deploy.native.plan import plan
from deploy.native.steps import Widths
from deploy.operations.functions import Combine
from deploy.program import Program
from models.layers.quantizers.base import Signs
from tests.deploy.native.sized import FAST, Size, chain, chained, check, depthwise, programs


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


@pytest.mark.parametrize("kernel", [1, 3])
@pytest.mark.parametrize("channels", [64, 65, 96, 100, 128, 130, 192])
def test_layers_on_threes_of_words(channels: int, kernel: int, kernels: str) -> None:
    """A layer with a result in bits, and one with numbers; with and without words beyond the threes."""
    sizes = [Size(channels, 3), Size(channels, kernel), Size(channels, kernel)]
    made = chain(np.random.default_rng(channels), (3, 5, 7), [Signs()] * 3, sizes, False)
    words = -(-channels // 32)
    threes = kernel * kernel * (words // 3) if kernel > 1 or words % 3 == 0 else 0
    found = [step for step in Native(made, kernels).plan.steps if step.operation == steps.SIGNS]
    assert [(step.threes, step.result.kind) for step in found] == [(threes, steps.BITS), (threes, steps.FLOAT)]
    check(made, kernels)


def test_layers_that_read_the_same_signs_share_one_copy_in_threes(kernels: str) -> None:
    layers = chain(np.random.default_rng(0), (3, 5, 7), [Signs()] * 2, [Size(96, 3), Size(96, 3)], False)
    *before, second = layers.operations
    other = replace(second, name="other")
    both = Combine(kind="add", sources=(len(before) + 1, len(before) + 2), name="sum")
    made = replace(layers, operations=(*before, second, other, both))
    assert [step.operation for step in Native(made, kernels).plan.steps].count(steps.THREES) == 1
    check(made, kernels)


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
