"""COCO's average precision on cases computed by hand, and on known pitfalls of evaluators."""

from __future__ import annotations

import sys

import pytest
import torch

from engine.errors import BAD_DATA, UserError
from engine.tasks.average_precision import Boxes, check_installed, measured

pytest.importorskip("pycocotools")


def truth(*boxes: list[float], labels: list[int] | None = None, **more: list) -> Boxes:
    return {
        "boxes": torch.tensor(boxes).reshape(-1, 4),
        "labels": torch.tensor(labels or [0] * len(boxes), dtype=torch.int64),
        **{key: torch.tensor(value) for key, value in more.items()},
    }


def found(*boxes: list[float], scores: list[float], labels: list[int] | None = None) -> Boxes:
    return {**truth(*boxes, labels=labels), "scores": torch.tensor(scores)}


NONE = {**truth(), "scores": torch.zeros(0)}
A, B = [10.0, 10, 30, 50], [60.0, 20, 90, 40]


def test_perfect_boxes() -> None:
    """The first object counts, too: an id of 0 would mean "not hit"."""
    seen = measured([found(A, B, scores=[0.9, 0.8])], [truth(A, B)], 1)
    assert (seen.mean, seen.half, seen.recall) == pytest.approx((1, 1, 1))


def test_one_of_two_is_found() -> None:
    """Precision is 1 up to a recall of 0.5, and 0 beyond: 51 of 101 recall levels count."""
    seen = measured([found(A, scores=[0.9])], [truth(A, B)], 1)
    assert (seen.mean, seen.half, seen.recall) == pytest.approx((51 / 101, 51 / 101, 0.5))


def test_an_overlap_of_0_6() -> None:
    """Box A counts at 3 of 10 overlaps: 0.50, 0.55 and 0.60."""
    near = [10.0, 10, 30, 34]  # 20 x 24 of 20 x 40
    seen = measured([found(near, scores=[0.9])], [truth(A)], 1)
    assert (seen.mean, seen.half) == pytest.approx((0.3, 1))


def test_a_wrong_box_before_the_right_one_halves_precision() -> None:
    seen = measured([found(B, A, scores=[0.9, 0.8])], [truth(A)], 1)
    assert (seen.mean, seen.half, seen.recall) == pytest.approx((0.5, 0.5, 1))


def test_wrong_boxes_in_a_picture_of_background_count() -> None:
    alone = measured([found(A, scores=[0.8])], [truth(A)], 1)
    beside = measured([found(A, scores=[0.8]), found(B, scores=[0.9])], [truth(A), truth()], 1)
    assert (alone.half, beside.half) == pytest.approx((1, 0.5))


def test_the_order_of_pictures_changes_nothing() -> None:
    pictures = [(found(A, scores=[0.8]), truth(A)), (NONE, truth(B)), (found(B, scores=[0.9]), truth())]
    one = measured([f for f, _ in pictures], [t for _, t in pictures], 1)
    other = measured([f for f, _ in pictures[::-1]], [t for _, t in pictures[::-1]], 1)
    assert one == other


def test_three_boxes_in_a_crowd_are_not_wrong() -> None:
    crowd = truth(A, [50.0, 0, 100, 100], crowd=[False, True])
    inside = [[55.0, 5, 70, 30], [60.0, 40, 80, 60], [75.0, 70, 95, 95]]
    seen = measured([found(A, *inside, scores=[0.5, 0.9, 0.8, 0.7])], [crowd], 1)
    assert seen.half == pytest.approx(1)


def test_classes_without_objects_do_not_count() -> None:
    seen = measured([found(A, B, B, scores=[0.9, 0.9, 0.8], labels=[0, 1, 2])], [truth(A, B, labels=[0, 1])], 3)
    assert seen.half == pytest.approx(1)


def test_no_boxes_and_no_objects() -> None:
    assert measured([NONE], [truth(A)], 1).mean == 0


@pytest.mark.parametrize("wanted", [truth(), truth(A, crowd=[True])], ids=["none", "crowds alone"])
def test_without_objects_there_is_no_score(wanted: Boxes) -> None:
    with pytest.raises(UserError, match="no picture has an object") as fault:
        measured([found(A, scores=[0.9])], [wanted], 1)
    assert fault.value.code == BAD_DATA


NAN, INFINITE = float("nan"), float("inf")
WRONG = {
    "nan": ([NAN] * 4, 0.9),
    "one nan": ([10.0, 10, NAN, 50], 0.9),
    "infinite": ([INFINITE] * 4, 0.9),
    "infinite area": ([0.0, 0, INFINITE, INFINITE], 0.9),
    "huge": ([-1e6, -1e6, 1e6, 1e6], 0.9),
    "no width": ([10.0, 10, 10, 50], 0.9),
    "one side crossed": ([30.0, 10, 10, 50], 0.9),
    "both sides crossed": ([30.0, 50, 10, 10], 0.9),
    "infinite score": (A, INFINITE),
}


@pytest.mark.parametrize(("box", "score"), WRONG.values(), ids=[*WRONG])
@pytest.mark.parametrize("crowd", [False, True])
def test_a_box_that_cannot_be_one_is_a_wrong_answer(box: list[float], score: float, crowd: bool) -> None:
    """A right box follows: its precision is 1/2, and would be 1 if the wrong box were left out, or taken for a hit."""
    wanted = truth(A, [50.0, 0, 100, 100], crowd=[False, True]) if crowd else truth(A)
    seen = measured([found(box, A, scores=[score, 0.8])], [wanted], 1)
    assert (seen.half, seen.recall) == pytest.approx((0.5, 1))


def test_no_box_without_a_score_is_a_hit() -> None:
    seen = measured([found(A, scores=[NAN])], [truth(A)], 1)
    assert (seen.mean, seen.half, seen.recall) == (0, 0, 0)


def test_objects_of_any_size_count() -> None:
    """pycocotools leaves out areas above 10,000,000,000."""
    assert measured([found(A, scores=[0.9])], [truth(A, area=[2e10])], 1).half == pytest.approx(1)


def test_equal_scores_keep_their_order() -> None:
    scores = [0.5, 0.5]
    assert measured([found(A, B, scores=scores)], [truth(A)], 1).half == pytest.approx(1)
    assert measured([found(B, A, scores=scores)], [truth(A)], 1).half == pytest.approx(0.5)


def test_recall_is_that_of_boxes_that_are_shown() -> None:
    seen = measured([found(A, B, scores=[0.9, 0.4])], [truth(A, B)], 1)
    assert (seen.half, seen.recall) == pytest.approx((1, 0.5))


def test_without_the_evaluator(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "pycocotools", None)
    with pytest.raises(UserError, match="not installed") as fault:
        check_installed()
    assert fault.value.hint == "pip install pycocotools"
