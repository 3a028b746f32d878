"""ImageNet's recipe equals torchvision's: the random crops of training, and the centre crop of evaluation."""

from __future__ import annotations

import random
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
from PIL import Image
from torchvision.transforms import CenterCrop, Compose, RandomResizedCrop, Resize, transforms
from torchvision.transforms.v2 import functional

from engine.cli.datasets import IMAGENET, SHIFT
from engine.data import crops
from engine.data.pictures import read_part, read_picture

SIZES = [(500, 375), (375, 500), (224, 224), (256, 256), (225, 301), (90, 61), (640, 427), (1000, 20), (7, 300), (1, 1)]


def picture(width: int, height: int) -> Image.Image:
    return Image.fromarray(np.random.default_rng(width).integers(0, 256, (height, width, 3), np.uint8))


@pytest.mark.parametrize("size", [224, 64, 8])
@pytest.mark.parametrize(("width", "height"), SIZES)
def test_the_middle_is_that_of_torchvision(width: int, height: int, size: int, tmp_path: Path) -> None:
    short = {224: 256, 64: 73, 8: 9}[size]
    picture(width, height).save(tmp_path / "a.png")
    wanted = Compose([Resize(short), CenterCrop(size)])(Image.open(tmp_path / "a.png"))
    assert np.array_equal(read_picture(tmp_path / "a.png", size, IMAGENET), np.array(wanted))


def test_the_middle_of_a_jpeg_is_that_of_torchvision(tmp_path: Path) -> None:
    picture(40, 30).resize((400, 300)).save(tmp_path / "a.JPEG")
    wanted = Compose([Resize(256), CenterCrop(224)])(Image.open(tmp_path / "a.JPEG").convert("RGB"))
    assert np.array_equal(read_picture(tmp_path / "a.JPEG", 224, IMAGENET), np.array(wanted))
    assert not np.array_equal(read_picture(tmp_path / "a.JPEG", 224, SHIFT), np.array(wanted))


def drawing(draws: random.Random) -> SimpleNamespace:
    """Return the functions of torch that torchvision draws a box with, in double precision, with numbers from `draws`."""

    def uniform(low: float, high: float) -> np.float64:
        return np.float64(low + (high - low) * draws.random())

    def randint(low: int, high: int, size: tuple[int]) -> np.int64:
        return np.int64(low + int(draws.random() * (high - low)))

    empty = SimpleNamespace(uniform_=uniform)
    return SimpleNamespace(tensor=np.array, log=np.log, exp=np.exp, empty=lambda _: empty, randint=randint)


@pytest.mark.parametrize(("width", "height"), SIZES)
def test_random_parts_are_drawn_as_torchvision_draws_them(
    width: int, height: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Equal random numbers give equal boxes."""
    given = Image.new("1", (width, height))
    for seed in range(300):
        with monkeypatch.context() as patch:
            patch.setattr(transforms, "torch", drawing(random.Random(seed)))
            top, left, high, wide = RandomResizedCrop.get_params(given, [0.08, 1.0], [3 / 4, 4 / 3])
        assert crops.box(width, height, random.Random(seed)) == (left, top, left + wide, top + high)


def test_random_parts_reach_from_end_to_end_of_their_limits() -> None:
    width, height = 500, 400
    boxes = np.array([crops.box(width, height, random.Random(seed)) for seed in range(4000)])
    left, top, right, bottom = boxes.T
    wide, high = right - left, bottom - top
    assert (left >= 0).all()
    assert (top >= 0).all()
    assert (right <= width).all()
    assert (bottom <= height).all()
    area, ratio = wide * high / (width * height), wide / high
    assert 0.079 < area.min() < 0.09
    assert 0.93 < area.max() <= 1
    assert 0.74 < ratio.min() < 0.76
    assert 1.32 < ratio.max() < 1.35
    assert abs(np.log(ratio).mean()) < 0.05
    for start, room in ((left, width - wide), (top, height - high)):
        share = start[room > 50] / room[room > 50]
        assert (share.min(), share.max()) == (0, 1)
        assert share.mean() == pytest.approx(0.5, abs=0.02)


def test_a_part_is_cut_scaled_and_mirrored_by_its_number(tmp_path: Path) -> None:
    path, given = tmp_path / "a.png", picture(90, 61)
    given.save(path)
    mirrored = 0
    for seed in range(40):
        draws = random.Random(seed)
        turned = draws.random() < 0.5
        left, top, right, bottom = crops.box(90, 61, draws)
        wanted = functional.resized_crop(given, top, left, bottom - top, right - left, [24, 24])
        assert np.array_equal(read_part(path, 24, seed, flip=False), np.array(wanted))
        found = functional.horizontal_flip(wanted) if turned else wanted
        assert np.array_equal(read_part(path, 24, seed, flip=True), np.array(found))
        mirrored += turned
    assert 8 < mirrored < 32
