"""Objects in arrays: of one picture, of several, and of none."""

from __future__ import annotations

import numpy as np
import torch

from engine.data.detection.objects import Objects

BOXES = np.array([[0, 0, 4, 3], [1, 2, 3, 4], [5, 5, 9, 6]], np.float64)


def objects() -> Objects:
    """Return the objects of four pictures, with rows in another order. The first picture has one object, the third two."""
    return Objects.gathered(
        4, [2, 0, 2], BOXES, [7, 8, 9], crowd=np.array([False, True, False]), area=np.array([1, 2, 3])
    )


def test_each_picture_has_its_own() -> None:
    found = objects()
    assert len(found) == 4
    third = found.of(2)
    assert {name: value.dtype for name, value in third.items()} == {
        "boxes": torch.float32, "labels": torch.int64, "crowd": torch.bool, "area": torch.float32,
    }  # fmt: skip
    assert third["boxes"].tolist() == BOXES[[0, 2]].tolist()
    assert [third[name].tolist() for name in ("labels", "crowd", "area")] == [[7, 9], [False, False], [1, 3]]
    assert found.of(0)["crowd"].tolist() == [True]


def test_a_picture_without_objects_has_boxes_of_shape_0_4() -> None:
    for empty in (objects().of(1), objects().of(3), Objects.gathered(2, [], np.zeros((0, 4)), []).of(1)):
        assert empty["boxes"].shape == (0, 4)
        assert [empty[name].shape for name in ("labels", "crowd", "area")] == [(0,)] * 3


def test_some_pictures_are_numbered_anew() -> None:
    found = objects().some([3, 2])
    assert len(found) == 2
    assert found.of(0)["labels"].tolist() == []
    assert found.of(1)["labels"].tolist() == [7, 9]
    assert len(objects().some([])) == 0


def test_an_area_that_nobody_gave_is_width_by_height() -> None:
    found = Objects.gathered(1, [0, 0, 0], BOXES, [0, 0, 0])
    assert found.of(0)["area"].tolist() == [12, 4, 4]
    assert not found.of(0)["crowd"].any()
