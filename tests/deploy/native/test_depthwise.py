"""Weights of depthwise layers in their kernel's order, by hand."""

from __future__ import annotations

import numpy as np
import pytest

from deploy.native import depthwise, steps
from deploy.native.layout import Place
from deploy.native.matrices import Geometry
from deploy.native.steps import Widths

WIDE = Widths(16, 3, 32, 64, True)


def test_taps_of_a_depthwise_layer_come_in_fours() -> None:
    """Five taps are two fours. Channel 21 is 16 + 4 + 1: vector 1, lane 1, second channel of the lane."""
    values = np.arange(70 * 5).reshape(70, 1, 1, 5) % 100
    place = Place((70, 3, 9), steps.BYTE, border=(0, 2, 0, 2))
    lanes = depthwise.lanes_of(70, 9, False, WIDE)
    weight, offsets = depthwise.weights_in_order([values, -values], lanes, Geometry((1, 5)), place)
    weight = weight.reshape(2, 2, 2, 4, 4, 4, 4)  # parts, fours, planes, vectors, lanes, channels, taps
    assert offsets.tolist() == [0, 72, 144, 216, 288, 0, 72, 144]  # the last three are read with weight 0
    assert weight[0, 0, 0, 1, 1, 1].tolist() == values[21, 0, 0, :4].tolist()
    assert weight[0, 1, 0, 1, 1, 1].tolist() == [values[21, 0, 0, 4], 0, 0, 0]
    assert weight[1, 0, 0, 1, 0, 1].tolist() == values[69, 0, 0, :4].tolist()
    assert not weight[1, :, :, 2:].any()
    assert (weight[:, :, 1] == -weight[:, :, 0]).all()


def test_channels_repeat_along_a_row() -> None:
    """24 channels: 64 lanes are two and two thirds of a place, so the third part ends where the first began."""
    lanes = depthwise.lanes_of(24, 40, True, WIDE)
    assert lanes.shape == (3, 64)
    assert lanes.reshape(-1).tolist() == [lane % 24 for lane in range(192)]
    assert depthwise.lanes_of(24, 2, True, WIDE).shape == (1, 64)  # 48 lanes are one part
    assert depthwise.lanes_of(70, 9, False, WIDE)[1].tolist() == [*range(64, 70), *[-1] * 58]


@pytest.mark.parametrize(
    ("channels", "columns", "pays"), [(8, 80, True), (24, 40, True), (64, 9, False), (120, 10, False)]
)
def test_rows_are_taken_where_they_save_vectors(channels: int, columns: int, pays: bool) -> None:
    assert depthwise.rows_pay(channels, columns, WIDE) is pays


@pytest.mark.parametrize(("values", "planes"), [([-128, 127], 1), ([0, 254], 2), ([-256, 1], 2), ([300, -300], 3)])
def test_weights_beyond_bytes_are_sums_of_bytes(values: list[int], planes: int) -> None:
    found = depthwise.in_bytes(np.array(values))
    assert found is not None
    assert len(found) == planes
    assert sum(found).tolist() == values
    assert all(plane.min() >= -128 and plane.max() <= 127 for plane in found)


def test_weights_beyond_three_bytes_are_left() -> None:
    assert depthwise.in_bytes(np.array([382])) is None
