"""Boxes that reach out of their pictures by rounding are clipped; wrong boxes are refused by name."""

from __future__ import annotations

import numpy as np
import pytest

from engine.data.detection.boxes import FLAT, Rows, checked
from engine.errors import UserError


def rows(*boxes: tuple[float, ...]) -> Rows:
    """Return rows for pictures of 100 x 200, out of which a box may reach by 1 and by 2 pixels."""
    count = len(boxes)
    sides, slack = np.tile([100.0, 200.0], (count, 1)), np.tile([1.0, 2.0], (count, 1))
    return Rows(np.array(boxes, np.float64).reshape(-1, 4), sides, slack, lambda row: f"box {row}", "pixels")


def test_what_lies_within_stays_and_nobody_is_told(capsys: pytest.CaptureFixture[str]) -> None:
    boxes, kept = checked(rows((0, 0, 100, 200), (5, 6, 7, 8), (-0.005, 0, 5, 200.01)), "here")
    assert boxes.tolist() == [[0, 0, 100, 200], [5, 6, 7, 8], [0, 0, 5, 200]]
    assert kept.tolist() == [0, 1, 2]
    assert capsys.readouterr().err == ""
    assert [len(found) for found in checked(rows(), "here")] == [0, 0]


def test_what_reaches_out_by_rounding_is_cut_and_counted(capsys: pytest.CaptureFixture[str]) -> None:
    boxes, _ = checked(rows((-1, -2, 101, 202), (1, 1, 9, 9), (90, 50, 100.5, 60)), "here")
    assert boxes.tolist() == [[0, 0, 100, 200], [1, 1, 9, 9], [90, 50, 100, 60]]
    assert capsys.readouterr().err == ("notice: here: 2 of 3 boxes reach beyond their pictures by rounding; clipped\n")


@pytest.mark.parametrize(
    "box", [(-1.1, 0, 5, 5), (0, -2.1, 5, 5), (0, 0, 101.1, 5), (0, 0, 5, 202.1), (150, 5, 160, 9)]
)
def test_what_reaches_out_further_is_refused(box: tuple[float, ...]) -> None:
    with pytest.raises(
        UserError, match=r"^box 1: the box from .* lies outside its picture, 100 x 200 pixels$"
    ) as fault:
        checked(rows((0, 0, 5, 5), box), "here")
    assert fault.value.code == 4


@pytest.mark.parametrize("box", [(5, 5, 5, 9), (5, 5, 9, 5), (5, 9, 9, 5), (100, 5, 100.5, 9)])
def test_a_box_without_width_or_height_is_refused(box: tuple[float, ...]) -> None:
    with pytest.raises(UserError, match=r"^box 1: the box from .* has no width or no height in its picture$") as fault:
        checked(rows((0, 0, 5, 5), box), "here")
    assert fault.value.code == 4


def test_one_in_ten_thousand_is_left_out_and_named(capsys: pytest.CaptureFixture[str]) -> None:
    """COCO's own training part has two such boxes, which will not be fixed; a box with swapped corners is refused."""
    many = [(0.0, 0.0, 5.0, 5.0)] * (FLAT - 1)
    boxes, kept = checked(rows((5, 5, 9, 5), *many), "here")
    assert kept.tolist() == list(range(1, FLAT))
    assert len(boxes) == FLAT - 1
    said = f"notice: here: 1 of {FLAT:,} boxes have no width or no height; left out: box 0\n"
    assert capsys.readouterr().err == said
    for refused in ([(5, 5, 9, 5), (5, 5, 5, 9), *many], [*many, (5, 9, 9, 5)]):
        with pytest.raises(UserError, match="has no width"):
            checked(rows(*refused), "here")
