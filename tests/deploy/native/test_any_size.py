"""Layers of any number of channels on pictures of any size give the reference's numbers and write no byte beyond the arena."""

from __future__ import annotations

import pytest
from hypothesis import given, settings

from deploy.program import Program
from tests.deploy.native.sized import FAST, check, programs


@settings(max_examples=30, derandomize=True, **FAST)
@given(made=programs())
def test_a_layer_of_any_size(made: Program, kernels: str) -> None:
    check(made, kernels)


@pytest.mark.slow
@settings(max_examples=2000, **FAST)
@given(made=programs())
def test_two_thousand_layers(made: Program, kernels: str) -> None:
    check(made, kernels)
