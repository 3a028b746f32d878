"""Compare the native engine with the reference, bit for bit, on one thread and on two."""

from __future__ import annotations

from typing import Any

import torch

from deploy.native.executor import Native
from deploy.reference.run import run
from tests.deploy.by_hand import given

KINDS = ("mean", "sum", "max", "min")
"""Reductions."""


def same(one: torch.Tensor, other: torch.Tensor) -> bool:
    """Return whether two values have the same bits: torch.equal takes -0 for 0."""
    return torch.equal(one.view(torch.int32), other.view(torch.int32))


def assert_equal(made: Any, kernels: str) -> None:
    native, x = Native(made, kernels), given(made, 3) * 3
    assert "by the reference" not in native.how
    expected = run(made, x)
    assert expected.std() > 0
    for threads in (1, 2):
        before = torch.get_num_threads()
        torch.set_num_threads(threads)
        try:
            assert same(native(x[:threads]), expected[:threads])  # one picture on two threads is cut into rows
            assert same(native(x), expected)
        finally:
            torch.set_num_threads(before)
