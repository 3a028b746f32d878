"""Bounds of sums that replace the signs of numbers, found by the reference's own fp32 operations."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from deploy.native import bits
from deploy.operations.base import Codes, Matrix
from deploy.reference.run import codes_of
from models.layers.quantizers.base import Signs

SCALES = (0.01, -0.01, 1e-30, -1e30, 0.0, 3.4e38, 1.0)
SHIFTS = (0.0, -0.5, 0.005, 1e-38, -3e38, 7.0)


def signs_by_bounds(found: dict[str, np.ndarray], plane: int, sums: np.ndarray) -> np.ndarray:
    flips = np.unpackbits(found["flips"][plane].view(np.uint8), bitorder="little")[: len(sums)].astype(bool)
    return (sums >= found["bounds"][plane, : len(sums), None]) ^ flips[:, None]


@pytest.mark.parametrize("shift", [None, *SHIFTS])
@pytest.mark.parametrize("edge", [None, 0.5, 1e-30])
def test_a_bound_gives_the_sign_that_the_number_has(edge: float | None, shift: float | None) -> None:
    scale = np.array(SCALES, np.float32)
    shifts = None if shift is None else np.full(len(scale), shift, np.float32)
    matrix, grid = (
        Matrix(Codes(np.ones((len(scale), 1), np.int16), 2, 1, np.array([-1], np.int32)), scale, None, shifts),
        Signs(edge),
    )
    found = bits.bounds(matrix, grid, len(scale), 16)
    near = np.concatenate([found["bounds"][:, : len(scale)].reshape(-1).astype(np.int64) + step for step in (-1, 0, 1)])
    ends = [-(2**31), -(2**31) + 1, -70000, -1, 0, 1, 70000, 2**31 - 2, 2**31 - 1]
    sums = np.unique(np.concatenate([near, ends, np.random.default_rng(0).integers(-(2**31), 2**31, 200)]))
    sums = np.tile(sums[(sums >= -(2**31)) & (sums < 2**31)].astype(np.int32), (len(scale), 1))
    numbers = torch.from_numpy(sums).float() * torch.from_numpy(scale)[:, None]
    if shifts is not None:
        numbers = numbers + torch.from_numpy(shifts)[:, None]
    right = codes_of(numbers, grid).numpy()
    assert (signs_by_bounds(found, 0, sums) == (right > 0)).all()
    if edge is not None:
        assert (signs_by_bounds(found, 1, sums) == (right < 0)).all()


def test_without_a_factor_the_bound_is_0() -> None:
    found = bits.bounds(Matrix(Codes(np.ones((3, 1), np.int16), 2, 1, np.array([-1], np.int32))), Signs(), 3, 8)
    assert found["bounds"].tolist() == [[0] * 3 + [bits.HIGHEST] * 8]
    assert not found["flips"].any()


def test_limits_by_hand() -> None:
    """With n differing bits the sum is (10 - 2 n) * 3 + 1: at least 4 for n <= 4, at least 5 for n <= 4, 31 for n = 0 only."""
    base, bias = np.array([[10, 10, 10, 10]], np.int32), np.array([1, 1, 1, 1], np.int32)
    bounds = np.array([[4, 5, 31, 32, 0]], np.int32)
    assert bits.limits(base, 3, bias, bounds, 4).tolist() == [[[4, 4, 0, -1]]]
    assert bits.limits(base, 3, bias, bounds, 2).tolist() == [
        [[4, 4, -1, -1]]
    ]  # padding outputs never reach their bound
