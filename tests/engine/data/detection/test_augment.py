"""Augmentation of training pictures: boxes move with their pixels, and depend only on their place in the run."""

from __future__ import annotations

from collections import Counter
from dataclasses import replace

import pytest
import torch

from engine.data.detection.augment import augmented, place
from engine.data.detection.sets import describe
from tests.tools.boxed import painted, seen

INFO = replace(describe("scenes", 64), flip=True)
BOXES, LABELS = [[10, 20, 50, 60], [70, 30, 100, 90]], [0, 1]
NONE = torch.zeros(0, 4), torch.zeros(0, dtype=torch.int64)


def moved(seed: int, info=INFO):
    picture = torch.from_numpy(painted((120, 100), BOXES, LABELS))
    return augmented(picture, torch.tensor(BOXES).float(), torch.tensor(LABELS), info, seed)


def test_boxes_enclose_what_they_enclosed() -> None:
    """Boxes are right to a pixel and a half of the scaled picture: one pixel by the crop's edge, half a pixel by scaling."""
    for seed in range(150):
        picture, boxes, labels = moved(seed)
        assert picture.shape == (64, 64, 3)
        assert len(boxes) == len(labels) > 0
        for box, label in zip(boxes.tolist(), labels.tolist(), strict=True):
            assert box == pytest.approx(seen(picture, label), abs=1.5), seed
            assert min(box) >= 0
            assert max(box) <= 64
            assert min(box[2] - box[0], box[3] - box[1]) >= 1


def test_a_crop_keeps_the_boxes_whose_centres_lie_in_it() -> None:
    """One that is left out may show at the edge, and no more of it than a half in each direction: that of the other colour."""
    kept = Counter[tuple[int, ...]]()
    for seed in range(150):
        picture, _, labels = moved(seed)
        kept[tuple(labels.tolist())] += 1
        for label in {0, 1} - set(labels.tolist()):
            edge = seen(picture, label)
            assert edge is None or min(edge) == 0 or max(edge) == 64
    assert set(kept) == {(0,), (1,), (0, 1)}


def test_sets_that_are_not_mirrored_are_not() -> None:
    """Without mirroring the first rectangle stays left of the second."""
    orders = {flip: set[bool]() for flip in (True, False)}
    for flip, found in orders.items():
        for seed in range(60):
            _, boxes, labels = moved(seed, replace(INFO, flip=flip))
            if labels.tolist() == [0, 1]:
                found.add(bool(boxes[0, 0] < boxes[1, 0]))
    assert orders == {True: {True, False}, False: {True}}


def test_a_picture_without_objects_stays_one() -> None:
    picture = torch.from_numpy(painted((120, 100), [], []))
    for seed in range(20):
        found, boxes, labels = augmented(picture, *NONE, INFO, seed)
        assert found.shape == (64, 64, 3)
        assert (boxes.shape, labels.shape) == ((0, 4), (0,))


@pytest.mark.parametrize("mean", [(0.2, 0.4, 0.6), (0.4,)], ids=["colours", "gray"])
def test_the_ground_beyond_a_picture_is_its_mean(mean: tuple[float, ...]) -> None:
    info = replace(INFO, mean=mean, std=mean)
    wanted = torch.tensor(mean if len(mean) == 3 else mean * 3).mul(255).round().byte()
    picture = torch.full((64, 64, 3), 255, dtype=torch.uint8)
    grounds = [found[~(found == 255).all(-1)] for found, *_ in (augmented(picture, *NONE, info, n) for n in range(20))]
    shown = torch.cat(grounds)
    assert 0 < sum(len(ground) > 0 for ground in grounds) < 20
    assert (shown == wanted).all(-1).float().mean() > 0.9  # other pixels are interpolated at the picture's edge


def test_boxes_of_less_than_a_pixel_are_left_out() -> None:
    picture = torch.zeros(64, 64, 3, dtype=torch.uint8)
    boxes = torch.tensor([[5.0, 5.0, 5.0, 9.0], [5.0, 5.0, 30.0, 30.0], [9.0, 9.0, 9.2, 30.0]])
    kept = [augmented(picture, boxes, torch.tensor([0, 1, 2]), INFO, seed)[2].tolist() for seed in range(20)]
    assert [1] in kept
    assert all(0 not in labels for labels in kept)
    assert all(2 not in labels for labels in kept)


def test_moves_are_a_function_of_the_seed_and_leave_random_numbers_alone() -> None:
    torch.manual_seed(3)
    before = torch.get_rng_state()
    one = moved(place(1, 2, 3, 4))
    assert torch.equal(before, torch.get_rng_state())
    torch.rand(7)
    assert all(map(torch.equal, one, moved(place(1, 2, 3, 4))))
    assert not torch.equal(one[0], moved(place(1, 2, 3, 5))[0])


def test_places_have_seeds_of_their_own() -> None:
    seeds = {
        place(seed, epoch, step, n)
        for seed in (0, 1, 2**63 - 1)
        for epoch in (0, 1)
        for step in (1, 2)
        for n in range(9)
    }
    assert len(seeds) == 3 * 2 * 2 * 9
    assert all(0 <= seed < 2**63 for seed in seeds)
