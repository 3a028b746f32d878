"""Digit scenes: boxes enclose the ink, scenes are equal on every machine, and test scenes share nothing with training scenes."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch

from engine.data import catalogue
from engine.data.detection import scenes, sets
from engine.data.detection.scenes import GRID, Draws, Placed
from engine.data.digits import read_digits
from engine.data.info import DETECTION
from engine.data.pixels import statistics
from engine.errors import UserError

DRAWN = [968, 83, 927, 95, 28, 456]
LABELS = [[1, 6], [8, 0, 9], [4, 7, 3, 0, 5]]
"""The labels of the first two training scenes and of the first test scene."""
BOXES = [[85, 60, 119, 110], [11, 70, 48, 123]]
"""The boxes of the first training scene, at a side of 160."""


def test_draws_are_those_of_every_machine() -> None:
    """The draws are fixed here: a NumPy with other draws would make other scenes under the same name."""
    draws = Draws(1, 7)
    assert [draws.between(0, 999) for _ in range(6)] == DRAWN
    assert {Draws(0, n).between(3, 5) for n in range(50)} == {3, 4, 5}


def test_the_first_scenes_are_known() -> None:
    (_, train), (_, test) = scenes.read(160, (2, 1))
    assert [train.of(n)["labels"].tolist() for n in (0, 1)] == LABELS[:2]
    assert test.of(0)["labels"].tolist() == LABELS[2]
    assert train.of(0)["boxes"].tolist() == BOXES


@pytest.mark.parametrize("size", [32, 96])
def test_a_box_is_the_extent_of_what_was_drawn(size: int) -> None:
    ink = np.zeros((8, 8), np.uint8)
    ink[1:7, 2:6] = 255
    for light, ground in ((True, 20), (False, 230)):
        picture = np.full((size, size, 3), ground, np.uint8)
        where = Placed(0, 1_000, 2_500, 4_000, 5_000)
        box = scenes.draw(picture, where, ink, Draws(0))
        changed = np.abs(picture.astype(int) - ground).max(-1)
        rows, columns = (np.flatnonzero((changed > 0.3 * changed.max()).any(axis)) for axis in (1, 0))
        assert (picture[changed == changed.max()] > ground).all() == light
        assert changed.max() > 150
        for side, edge in zip(box, (columns[0], rows[0], columns[-1] + 1, rows[-1] + 1), strict=True):
            assert abs(side - edge) <= 1
        assert box[0] >= size * where.left // GRID
        assert box[3] <= -(-size * (where.top + where.height) // GRID)


def test_digits_hide_little_of_each_other() -> None:
    one = Placed(0, 0, 0, 1_000, 1_000)
    assert one.covers(Placed(0, 800, 0, 1_000, 1_000))
    assert not one.covers(Placed(0, 900, 0, 1_000, 1_000))  # a tenth
    assert not one.covers(Placed(0, 1_000, 0, 10, 10))
    assert one.covers(Placed(0, 10, 10, 20, 20))  # of the smaller one
    inks = [np.ones((8, 6), np.uint8)]
    for number in range(100):
        found = scenes.place(Draws(number), inks)
        assert 1 <= len(found) <= scenes.MOST
        assert not any(a.covers(b) for a in found for b in found if a is not b)
        assert all(0 <= p.left <= GRID - p.width and 0 <= p.top <= GRID - p.height for p in found)


def test_test_scenes_show_other_digits_and_other_regions(monkeypatch: pytest.MonkeyPatch) -> None:
    """Photographs with one colour on each side of the line, and digits marked by part, reveal the sources of a scene."""
    photo = np.zeros(scenes.SHAPE, np.uint8)
    photo[:, : scenes.TRAINING_WIDTH] = (10, 200, 10)
    photo[:, scenes.TRAINING_WIDTH :] = (10, 10, 200)
    monkeypatch.setattr(scenes, "_photographs", lambda: [photo])
    monkeypatch.setattr(scenes, "draw", lambda picture, where, ink, draws: (0, 0, ink.shape[1], ink.shape[0]))
    seen = []
    monkeypatch.setattr(scenes, "_ink", lambda image: seen.append(image.copy()) or image)
    (train, _), (test, _) = scenes.read(16, (60, 30))
    assert (train == torch.tensor([10, 200, 10])).all()
    assert (test == torch.tensor([10, 10, 200])).all()
    (images, _), (held, _), _ = read_digits(Path(), 8)
    assert len(seen) == len(images) + len(held) == 1797
    assert np.array_equal(np.stack(seen[len(images) :]), held[..., 0].numpy())


def test_they_are_described_without_being_composed() -> None:
    info = catalogue.describe("scenes", None)
    assert (info.label, info.classes, info.image_size, info.task) == ("digit scenes (composed)", 10, 160, DETECTION)
    assert info.flip is False
    assert info.names == tuple("0123456789")


@pytest.mark.slow
def test_all_scenes_are_made_of_what_is_described() -> None:
    data = catalogue.load("scenes")
    assert data.info == catalogue.describe("scenes", None)
    assert (len(data.train), len(data.test)) == (2_000, 500)
    (pictures, objects), (_, tested) = scenes.read()
    assert statistics(pictures) == (sets.SCENES_MEAN, sets.SCENES_STD)
    for part in (objects, tested):
        sides = (part.boxes[:, 2:] - part.boxes[:, :2]) / scenes.SIDE
        assert 0.1 < sides[:, 1].min() < sides[:, 1].max() < 0.41
        assert set(part.labels.tolist()) == set(range(10))
        assert set(np.diff(part.ends).tolist()) == {1, 2, 3, 4, 5}
        assert part.boxes.min() >= 0
        assert part.boxes.max() <= scenes.SIDE
    held = catalogue.load("scenes", image_size=64, val=100)
    assert (len(held.train), len(held.test), held.part) == (1_900, 100, "val")


def test_scenes_that_fill_the_memory_are_refused() -> None:
    with pytest.raises(UserError, match="--image_size 1024"):
        catalogue.load("scenes", image_size=1024)


def test_photographs_of_another_size_are_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    import sklearn.datasets

    monkeypatch.setattr(sklearn.datasets, "load_sample_image", lambda name: np.zeros((4, 4, 3), np.uint8))
    with pytest.raises(UserError, match="photographs") as fault:
        scenes.read(32, (1, 1))
    assert fault.value.code == 4
