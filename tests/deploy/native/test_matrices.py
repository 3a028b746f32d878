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


WIDE = Widths(16, 3, 32, 64, True)


def test_taps_of_a_depthwise_layer_come_in_fours() -> None:
    """Five taps are two fours. Channel 21 is 16 + 4 + 1: vector 1, lane 1, second channel of the lane."""
    values = np.arange(70 * 5).reshape(70, 1, 1, 5) % 100
    place = Place((70, 3, 9), steps.BYTE, border=(0, 2, 0, 2))
    lanes = matrices.lanes_of(70, 9, False, WIDE)
    weight, offsets = matrices.taps_apart([values, -values], lanes, Geometry((1, 5)), place)
    weight = weight.reshape(2, 2, 2, 4, 4, 4, 4)  # parts, fours, planes, vectors, lanes, channels, taps
    assert offsets.tolist() == [0, 72, 144, 216, 288, 0, 72, 144]  # the last three are read with weight 0
    assert weight[0, 0, 0, 1, 1, 1].tolist() == values[21, 0, 0, :4].tolist()
    assert weight[0, 1, 0, 1, 1, 1].tolist() == [values[21, 0, 0, 4], 0, 0, 0]
    assert weight[1, 0, 0, 1, 0, 1].tolist() == values[69, 0, 0, :4].tolist()
    assert not weight[1, :, :, 2:].any()
    assert (weight[:, :, 1] == -weight[:, :, 0]).all()


def test_channels_repeat_along_a_row() -> None:
    """24 channels: 64 lanes are two and two thirds of a place, so the third part ends where the first began."""
    lanes = matrices.lanes_of(24, 40, True, WIDE)
    assert lanes.shape == (3, 64)
    assert lanes.reshape(-1).tolist() == [lane % 24 for lane in range(192)]
    assert matrices.lanes_of(24, 2, True, WIDE).shape == (1, 64)  # 48 lanes are one part
    assert matrices.lanes_of(70, 9, False, WIDE)[1].tolist() == [*range(64, 70), *[-1] * 58]


@pytest.mark.parametrize(
    ("channels", "columns", "pays"), [(8, 80, True), (24, 40, True), (64, 9, False), (120, 10, False)]
)
def test_rows_are_taken_where_they_save_vectors(channels: int, columns: int, pays: bool) -> None:
    assert matrices.rows_pay(channels, columns, WIDE) is pays


@pytest.mark.parametrize(("values", "planes"), [([-128, 127], 1), ([0, 254], 2), ([-256, 1], 2), ([300, -300], 3)])
def test_weights_beyond_bytes_are_sums_of_bytes(values: list[int], planes: int) -> None:
    found = matrices.in_bytes(np.array(values))
    assert found is not None
    assert len(found) == planes
    assert sum(found).tolist() == values
    assert all(plane.min() >= -128 and plane.max() <= 127 for plane in found)


def test_weights_beyond_three_bytes_are_left() -> None:
    assert matrices.in_bytes(np.array([382])) is None
