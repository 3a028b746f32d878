"""Batches: normalised by the formula, shifted and mirrored as by a slow loop, a pure function of their place in the run."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
import torch

from engine.data import augment, catalogue, splits
from engine.data.info import DataInfo
from engine.data.splits import Data, TensorSplit
from engine.errors import USAGE, UserError
from tests.tools.noise import equal_batches, noise

CPU = torch.device("cpu")
INFO = DataInfo("imagefolder", "noise", 3, 8, (0.1, 0.2, 0.3), (0.5, 0.6, 0.7), pad=2)


def split(count: int = 11) -> TensorSplit:
    return TensorSplit(noise(count), torch.arange(count) % 3, INFO, CPU)


def test_bytes_are_normalised_one_operation_after_the_other() -> None:
    """The operations are in fp32, as in the engines for packed files."""
    given = torch.arange(256, dtype=torch.uint8).reshape(1, 16, 16, 1).repeat(1, 1, 1, 3)
    mean, std = (0.4914, 0.1, 0.3), (0.2470, 0.3, 1.0)
    shares = given[0, :, :, 0].numpy().astype(np.float32) / np.float32(255)
    parts = [(shares - np.float32(mean[c])) / np.float32(std[c]) for c in range(3)]
    found = augment.normalise(given, DataInfo.unknown(10, 16).normalised(mean, std))
    assert np.array_equal(found[0].numpy(), np.stack(parts))


@pytest.mark.parametrize("channels", [3, 1])
def test_large_batches_are_normalised_in_parts(channels: int, monkeypatch: pytest.MonkeyPatch) -> None:
    """The parts give the same bits in the same memory order."""
    info, pictures = INFO.normalised(INFO.mean[:channels], INFO.std[:channels]), noise(11)
    whole = augment.normalise(pictures, info)
    monkeypatch.setattr(augment, "MOST_AT_ONCE", 100)
    monkeypatch.setattr(augment, "CACHED", 4 * pictures[0].numel())
    found = augment.normalise(pictures, info)
    assert torch.equal(found, whole)
    assert found.stride() == whole.stride()


def test_batches_are_in_order_and_normalised() -> None:
    part = split()
    images, labels = (torch.cat(list(column)) for column in zip(*part.batches(4), strict=True))
    assert torch.equal(labels, part.labels)
    mean, std = np.array(INFO.mean), np.array(INFO.std)
    expected = ((part.images.numpy() / 255 - mean) / std).transpose(0, 3, 1, 2)
    np.testing.assert_allclose(images, expected, rtol=1e-5, atol=1e-6)
    assert images.dtype == torch.float32


def test_another_normalisation_is_that_of_both_parts() -> None:
    """It is set in place, so the function returns nothing."""
    data = Data(INFO, split(), split())
    assert data.set_normalisation((0.5, 0.6, 0.7), (0.1, 0.2, 0.3)) is None
    wanted = replace(INFO, mean=(0.5, 0.6, 0.7), std=(0.1, 0.2, 0.3))
    assert data.info == data.train.info == data.test.info == wanted


@pytest.mark.parametrize("flip", [True, False])
def test_shifts_and_mirrors_equal_a_loop_over_pictures(flip: bool) -> None:
    info, pictures, pad = replace(INFO, flip=flip), noise(9), INFO.pad
    found = augment.moved(pictures, info, augment.moves(len(pictures), info, augment.generator(3, 5, 7)))
    draws = augment.generator(3, 5, 7)
    shift = torch.randint(0, 2 * pad + 1, (2, 9, 1), generator=draws)
    mirrored = torch.rand(9, 1, generator=draws) < 0.5 if flip else torch.zeros(9, 1)
    for n, picture in enumerate(pictures):
        wide = torch.zeros(8 + 2 * pad, 8 + 2 * pad, 3, dtype=torch.uint8)
        wide[pad:-pad, pad:-pad] = picture
        top, left = int(shift[0, n]), int(shift[1, n])
        cut = wide[top : top + 8, left : left + 8]
        if mirrored[n]:
            cut = torch.flip(cut, (1,))
        assert torch.equal(found[n], augment.normalise(cut[None], info)[0])
    assert len({tuple(s) for s in shift[:, :, 0].T.tolist()}) > 3  # the shifts vary
    assert not flip or 0 < mirrored.sum() < 9


def test_training_batches_depend_on_seed_and_epoch_alone() -> None:
    part = split(64)
    torch.manual_seed(1)
    first = list(part.training_batches(16, 1, 0))
    torch.manual_seed(2)  # the global random state does not matter
    assert equal_batches(first, part.training_batches(16, 1, 0))
    assert sorted(torch.cat([labels for _, labels in first]).tolist()) == sorted(part.labels.tolist())
    for seed, epoch in ((2, 0), (1, 1)):
        assert not equal_batches(first, part.training_batches(16, seed, epoch))
    images, _ = first[2]  # any step can be repeated alone
    order = torch.randperm(64, generator=augment.generator(1, 0))
    assert torch.equal(
        images, augment.moved(part.images[order[32:48]], INFO, augment.moves(16, INFO, augment.generator(1, 0, 3)))
    )


def test_an_epoch_may_begin_at_any_step() -> None:
    part = split(37)
    whole = list(part.training_batches(8, 1, 0))
    assert len(whole) == 5
    for start in range(5):
        assert equal_batches(whole[start:], part.training_batches(8, 1, 0, start))
    assert not list(part.training_batches(8, 1, 0, 5))


@pytest.mark.parametrize(
    ("pictures", "size", "sizes"),
    [(1, 4, [1]), (2, 2, [2]), (3, 2, [2]), (5, 4, [4]), (6, 4, [4, 2]), (7, 4, [4, 3]), (8, 4, [4, 4]), (9, 8, [8])],
)
def test_a_remainder_too_small_for_statistics_is_left_out(pictures: int, size: int, sizes: list[int]) -> None:
    assert [len(labels) for _, labels in split(pictures).training_batches(size, 1, 0)] == sizes
    assert splits.steps(pictures, size) == len(sizes)


def test_held_out_pictures_are_apart_and_always_the_same() -> None:
    results = []
    for seed in (1, 2):
        torch.manual_seed(seed)
        kept, held = (part.tolist() for part in splits.held_out(50, 10))
        assert sorted([*kept, *held]) == list(range(50))
        results.append(held)
    assert results[0] == results[1]
    assert len(results[0]) == 10
    whole, known = catalogue.load("digits", image_size=8), catalogue.load("digits", image_size=8, val=100)
    for part, index in zip((known.train, known.test), splits.held_out(1437, 100), strict=True):
        assert torch.equal(part.images, whole.train.images[index])
        assert torch.equal(part.labels, whole.train.labels[index])
    assert (len(known.train), len(known.test), known.part) == (1337, 100, "val")


def test_two_pictures_stay_to_train_on() -> None:
    """Batch norm has no variance of one picture."""
    assert len(splits.held_out(5, 3)[0]) == 2
    for total, count, most in ((1437, 1436, 1435), (1437, 1437, 1435), (3, 9, 1)):
        with pytest.raises(
            UserError, match=f"^--val {count}: of {total:,} training pictures at least 2 have to stay"
        ) as fault:
            splits.held_out(total, count)
        assert (fault.value.code, fault.value.hint) == (USAGE, f"give --val a number from 1 to {most}")
    with pytest.raises(UserError) as fault:
        splits.held_out(2, 1)
    assert fault.value.hint == "leave --val out"
    with pytest.raises(UserError, match="--val 1437: of 1,437 training pictures"):
        catalogue.load("digits", image_size=8, val=1437)
