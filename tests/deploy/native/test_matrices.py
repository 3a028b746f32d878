"""Weights in the kernels' layouts, by hand."""

from __future__ import annotations

import numpy as np
import pytest

from deploy.native import matrices, steps
from deploy.native.layout import Place
from deploy.native.matrices import Geometry
from deploy.native.steps import Widths
from deploy.operations.base import Codes


def codes(values: list[list[int]]) -> Codes:
    return Codes(np.array(values, np.int16), 1024, 1, np.array([-512], np.int32))


@pytest.mark.parametrize(
    ("values", "factor", "each"),
    [
        ([[-255, 255], [1, 3]], 2, [1, 257]),  # DoReFa's odd numbers
        ([[0, 255], [-10, 200]], 1, [128, 118]),  # grids off 0, different for each filter
        ([[-254, 0], [-100, 100]], 1, [-126, 28]),
        ([[-254, 254], [1, -3]], 2, [2, 253]),  # even in one filter, odd in the other
    ],
)
def test_weights_beyond_bytes_are_a_factor_and_what_is_left(
    values: list[list[int]], factor: int, each: list[int]
) -> None:
    found = matrices.halves(codes(values))
    assert found is not None
    assert (found.factor, found.each.tolist()) == (factor, each)
    assert found.stored.min() >= -128
    assert found.stored.max() <= 127
    assert (found.factor * found.stored[:, :, 0, 0] + found.each[:, None] == values).all()


@pytest.mark.parametrize("values", [[[-255, 254]], [[-300, 300]], [[0, 256, 3]]])
def test_other_weights_are_left(values: list[list[int]]) -> None:
    assert matrices.halves(codes(values)) is None


def test_rows_of_few_channels_lie_in_one_piece() -> None:
    """Three channels times three columns are nine contiguous bytes, which are three fours."""
    widths, place = Widths(8, 3, 8, 0, True), Place((3, 5, 6), steps.BYTE, border=(1, 1, 1, 1))
    values = np.arange(1, 2 * 3 * 2 * 5 + 1).reshape(2, 3, 2, 5)
    assert place.pitch == 3
    stored, offsets, outputs, count = matrices.blocks(values, Geometry((2, 5)), place, 4, widths)
    assert (outputs, count) == (8, 8)  # 15 bytes in a row: four fours
    assert offsets.tolist() == [[0, 4, 8, 12, 24, 28, 32, 36]]
    first = stored.reshape(count, 8, 4)[:4, 0].reshape(-1)
    assert first[:15].tolist() == values[0, :, 0, :].T.reshape(-1).tolist()
    assert first[15] == 0
