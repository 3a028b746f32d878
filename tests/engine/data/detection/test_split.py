"""Batches of pictures and objects are equal for any reader, after any resume, and for any number of ranks."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image

from engine.data.detection import scenes
from engine.data.detection.objects import Objects
from engine.data.detection.sets import describe
from engine.data.detection.sources import Files, Memory
from engine.data.detection.split import DetectionSplit
from engine.errors import UserError
from engine.system import ranks

CPU = torch.device("cpu")
INFO = describe("scenes", 32)


@pytest.fixture(scope="module")
def composed() -> tuple[torch.Tensor, Objects]:
    return scenes.read(32, (21, 1))[0]


@pytest.fixture
def split(composed: tuple[torch.Tensor, Objects]) -> DetectionSplit:
    return DetectionSplit(Memory(composed[0]), composed[1], INFO, CPU, 0)


def in_files(folder: Path, composed: tuple[torch.Tensor, Objects], workers: int) -> DetectionSplit:
    """Return the same split from files: 21 pictures of 32 x 32 pixels."""
    files = [folder / f"{number}.png" for number in range(len(composed[0]))]
    for path, picture in zip(files, composed[0].numpy(), strict=True):
        Image.fromarray(picture).save(path)
    return DetectionSplit(Files(files), composed[1], INFO, CPU, workers)


def flat(batch: tuple[torch.Tensor, list[dict[str, torch.Tensor]]]) -> list[Any]:
    """Return all numbers of a batch, with the names of its fields."""
    return [batch[0], *(value for target in batch[1] for _, value in sorted(target.items()))]


def same(one: Any, other: Any) -> bool:
    one, other = list(one), list(other)
    return len(one) == len(other) > 0 and all(
        len(flat(a)) == len(flat(b)) and all(map(torch.equal, flat(a), flat(b)))
        for a, b in zip(one, other, strict=True)
    )


def test_evaluation_shows_pictures_and_boxes_as_they_are(
    split: DetectionSplit, composed: tuple[torch.Tensor, Objects]
) -> None:
    batches = list(split.batches(8))
    assert [len(images) for images, _ in batches] == [8, 8, 5]
    images, targets = batches[1]
    assert images.shape == (8, 3, 32, 32)
    assert images.dtype == torch.float32
    assert images.is_contiguous(memory_format=torch.channels_last)
    pixels = images.permute(0, 2, 3, 1) * torch.tensor(INFO.std) + torch.tensor(INFO.mean)
    assert torch.allclose(pixels * 255, composed[0][8:16].float(), atol=1e-3)
    for number, target in enumerate(targets):
        assert target.keys() == {"boxes", "labels", "crowd", "area"}
        assert all(torch.equal(value, composed[1].of(8 + number)[name]) for name, value in target.items())
    order = torch.tensor([9, 3])
    assert torch.equal(next(split.batches(5, order))[0][0], images[1])
    assert next(split.batches(5, order))[1][0]["labels"].tolist() == targets[1]["labels"].tolist()


def test_training_leaves_crowds_out_and_keeps_pictures_of_none(composed: tuple[torch.Tensor, Objects]) -> None:
    pictures, shown = composed
    crowd = np.repeat(np.arange(len(shown)), np.diff(shown.ends)) % 2 == 0  # all objects of every second picture
    split = DetectionSplit(Memory(pictures), replace(shown, crowd=crowd), INFO, CPU, 0)
    counts = [len(target["labels"]) for _, targets in split.training_batches(7, 1, 0) for target in targets]
    assert len(counts) == 21
    assert sum(count == 0 for count in counts) == 11
    for _, targets in split.training_batches(7, 1, 0):
        for target in targets:
            assert target.keys() == {"boxes", "labels"}
            assert target["boxes"].shape == (len(target["labels"]), 4)
    assert sum(len(target["labels"]) for _, targets in split.batches(7) for target in targets) == len(shown.labels)


def test_an_epoch_shows_every_picture_once_and_no_two_epochs_alike(split: DetectionSplit) -> None:
    split.info = replace(split.info, mean=(0.0,) * 3, std=(1.0,) * 3)
    epochs = [list(split.training_batches(7, 1, epoch)) for epoch in (0, 1)]
    assert [len(images) for images, _ in epochs[0]] == [7, 7, 7]
    assert not same(*epochs)
    assert same(epochs[0], split.training_batches(7, 1, 0))
    assert not same(epochs[0], split.training_batches(7, 2, 0))


@pytest.mark.parametrize("workers", [0, 2])
def test_files_give_what_memory_gives_whatever_reads_them(
    workers: int, split: DetectionSplit, composed: tuple[torch.Tensor, Objects], tmp_path: Path
) -> None:
    """Pictures in files are also 32 pixels wide here, so training sees the same pixels."""
    other = in_files(tmp_path, composed, workers)
    assert same(split.batches(8), other.batches(8))
    assert same(split.training_batches(7, 1, 4), other.training_batches(7, 1, 4))


@pytest.mark.parametrize("workers", [0, 2])
def test_an_epoch_may_begin_at_any_step(workers: int, composed: tuple[torch.Tensor, Objects], tmp_path: Path) -> None:
    part = in_files(tmp_path, composed, workers)
    whole = list(part.training_batches(7, 1, 0))
    for start in (1, 2):
        assert same(whole[start:], part.training_batches(7, 1, 0, start))
    assert not list(part.training_batches(7, 1, 0, 3))


def test_reading_draws_nothing_from_torchs_own_numbers(composed: tuple[torch.Tensor, Objects], tmp_path: Path) -> None:
    part = in_files(tmp_path, composed, 2)
    before = torch.get_rng_state()
    list(part.training_batches(7, 1, 0))
    list(part.batches(7))
    assert torch.equal(before, torch.get_rng_state())


def test_ranks_share_a_batch_and_change_nothing_in_it(split: DetectionSplit, monkeypatch: pytest.MonkeyPatch) -> None:
    whole = list(split.training_batches(7, 1, 0))
    shares = []
    monkeypatch.setattr(ranks, "count", lambda: 2)
    for rank in (0, 1):
        monkeypatch.setattr(ranks, "rank", lambda rank=rank: rank)
        shares.append(list(split.training_batches(7, 1, 0)))
    for together, one, other in zip(whole, *shares, strict=True):
        assert (len(one[1]), len(other[1])) == (4, 3)
        assert torch.equal(together[0], torch.cat([one[0], other[0]]))
        assert same([together], [(together[0], one[1] + other[1])])


def test_gray_networks_are_shown_one_channel(split: DetectionSplit) -> None:
    split.info = split.info.normalised((0.4,), (0.3,))
    assert next(split.batches(2))[0].shape == (2, 1, 32, 32)
    assert next(split.training_batches(2, 1, 0))[0].shape == (2, 1, 32, 32)


@pytest.mark.parametrize("workers", [0, 2])
def test_a_picture_that_cannot_be_read_is_named(
    workers: int, composed: tuple[torch.Tensor, Objects], tmp_path: Path
) -> None:
    part = in_files(tmp_path, composed, workers)
    (tmp_path / "12.png").write_bytes(b"no picture")
    with pytest.raises(UserError, match=r"12\.png") as fault:
        list(part.batches(8))
    assert fault.value.code == 4
    del fault  # a reference cycle through this frame would keep the reading processes until garbage collection


def test_large_pictures_are_cropped_before_they_are_scaled(tmp_path: Path) -> None:
    """Training crops from up to twice the side; a small picture is enlarged first."""
    files = [tmp_path / name for name in ("large.png", "wide.png", "small.png")]
    for path, sides in zip(files, ((100, 90), (50, 20), (5, 8)), strict=True):
        Image.new("RGB", sides).save(path)
    source = Files(files)
    assert [tuple(source.whole(number, 32).shape) for number in range(3)] == [(64, 64, 3), (32, 50, 3), (32, 32, 3)]
    assert [tuple(source.scaled(number, 32).shape) for number in range(3)] == [(32, 32, 3)] * 3


def test_a_picture_of_another_size_than_annotated_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "a.png"
    Image.new("RGB", (40, 30)).save(path)
    assert Files([path], [(40, 30)]).scaled(0, 16).shape == (16, 16, 3)
    for said, hint in (((30, 40), "EXIF"), ((80, 60), "width and height")):
        with pytest.raises(UserError, match=f"40 x 30 pixels, its annotation is for {said[0]} x {said[1]}") as fault:
            Files([path], [said]).scaled(0, 16)
        assert (fault.value.code, hint in fault.value.hint) == (4, True)
