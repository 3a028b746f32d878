"""Codes in bytes: by hand for every width, read back for any count, and refused if invalid."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, strategies as st

from deploy import codes

LEVELS = (2, 3, 4, 8, 16, 32, 64, 128, 256)


@pytest.mark.parametrize(
    ("levels", "given_", "expected"),
    [
        (2, [1, 0, 0, 0, 0, 0, 0, 1, 1], [0b10000001, 1]),
        (4, [1, 2, 3, 0, 1], [0b00111001, 1]),
        (8, [7, 0, 5], [0b01000111, 0b1]),  # the third continues in the second byte
        (16, [1, 14, 7], [0xE1, 0x07]),  # the first in the low half
        (256, [3, 255], [3, 255]),
        (3, [2, 1, 0, 2, 1], [140]),
        (3, [2, 2, 2, 2, 2, 1], [242, 1]),
    ],
)
def test_bytes_by_hand(levels: int, given_: list[int], expected: list[int]) -> None:
    found = codes.packed(np.array(given_, np.uint8), levels)
    assert found.tolist() == expected
    assert codes.unpacked(found, len(given_), levels).tolist() == given_


@pytest.mark.parametrize(
    ("count", "levels", "expected"), [(5, 16, 3), (5, 4, 2), (5, 2, 1), (5, 3, 1), (6, 3, 2), (0, 3, 0), (3, 8, 2)]
)
def test_sizes(count: int, levels: int, expected: int) -> None:
    assert codes.size(count, levels) == expected


@given(st.sampled_from(LEVELS), st.integers(0, 200), st.integers(0, 2**32 - 1))
def test_what_is_packed_is_read_back(levels: int, count: int, seed: int) -> None:
    given_ = np.random.default_rng(seed).integers(0, levels, count).astype(np.uint8)
    found = codes.packed(given_, levels)
    assert found.dtype == np.uint8
    assert len(found) == codes.size(count, levels)
    assert np.array_equal(codes.unpacked(found, count, levels), given_)


def test_any_shape_is_packed_in_its_order() -> None:
    given_ = np.arange(12, dtype=np.uint8).reshape(2, 3, 2)
    assert codes.unpacked(codes.packed(given_, 16), 12, 16).tolist() == list(range(12))


@pytest.mark.parametrize(
    ("stored", "count", "levels", "error"),
    [
        ([243], 5, 3, "byte 243 holds no ternary codes"),
        ([1, 2], 5, 3, "5 codes of 3 levels take 1 bytes, not 2"),
        ([], 1, 2, "1 codes of 2 levels take 1 bytes, not 0"),
        ([0b100], 2, 2, "what follows the last code is not 0"),
        ([0x10], 1, 16, "what follows the last code is not 0"),
        ([81], 4, 3, "what follows the last code is not 0"),
        ([0], 1, 5, "codes of 5 levels"),
        ([0], 1, 512, "codes of 512 levels"),
        ([0], 1, 0, "codes of 0 levels"),
    ],
)
def test_bytes_that_are_no_codes_are_refused(stored: list[int], count: int, levels: int, error: str) -> None:
    with pytest.raises(ValueError, match=error):
        codes.unpacked(np.array(stored, np.uint8), count, levels)


@pytest.mark.parametrize("given_", [np.array([4], np.uint8), np.array([1], np.int64), np.array([-1], np.int8)])
def test_what_is_no_code_is_not_packed(given_: np.ndarray) -> None:
    with pytest.raises(ValueError, match="from 0 to 3"):
        codes.packed(given_, 4)
