"""Cutout: squares of the mean colour, the same for the same place in a run, and refused where it makes no sense."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from torch import Tensor

from engine.data import cutout
from engine.system import ranks
from engine.tasks.classification import CLASSIFICATION
from engine.training.loop import fit
from engine.training.step import Step
from tests.conftest import NARROW, SMALL, assert_refused
from tests.tools.contents import raw
from tests.tools.training import RECIPE, config, network, pictures

Command = Callable[..., SimpleNamespace]
COUNT, SIZE = 70, 32


def ones() -> Iterator[tuple[Tensor, int]]:
    """Yield an epoch of pictures of ones, taller than wide, in channels-last memory."""
    for step in range(3):
        pictures = torch.ones(min(SIZE, COUNT - step * SIZE), 3, 12, 8)
        yield pictures.to(memory_format=torch.channels_last), step


def epoch(side: int, seed: int = 1, number: int = 0, start: int = 0) -> Tensor:
    """Return all pictures of an epoch from a step on, with their squares."""
    given = (batch for batch in ones() if batch[1] >= start)
    found = [*cutout.blanked(given, side, COUNT, SIZE, seed, number, start)]
    assert [target for _, target in found] == [*range(start, 3)]
    assert all(images.is_contiguous(memory_format=torch.channels_last) for images, _ in found)
    return torch.cat([images for images, _ in found])


@pytest.mark.parametrize("side", [1, 4, 5])
def test_one_square_in_each_picture(side: int) -> None:
    gone = epoch(side) == 0
    assert all(torch.equal(gone[:, 0], gone[:, channel]) for channel in (1, 2))
    corners = set()
    for picture in gone[:, 0]:
        rows, columns = (picture.any(axis).nonzero().squeeze(1).tolist() for axis in (1, 0))
        assert picture[rows[0] : rows[-1] + 1, columns[0] : columns[-1] + 1].all()
        assert picture.sum() == len(rows) * len(columns)
        for places, last in ((rows, 11), (columns, 7)):
            by_an_edge = places[0] == 0 or places[-1] == last
            assert len(places) == side or (by_an_edge and side // 2 <= len(places) < side)
        corners.add((rows[0], columns[0]))
    assert len(corners) > 30


def test_squares_depend_on_seed_and_epoch_and_go_on_after_a_stop() -> None:
    first = epoch(4)
    assert torch.equal(first, epoch(4))
    assert not torch.equal(first, epoch(4, seed=2))
    assert not torch.equal(first, epoch(4, number=1))
    assert torch.equal(first[2 * SIZE :], epoch(4, start=2))


def test_squares_alone_are_changed_in_each_epoch_of_a_training(monkeypatch: pytest.MonkeyPatch) -> None:
    """Shifts, mirroring and the order of the pictures do not depend on cutout; squares differ between epochs."""
    seen: list[Tensor] = []

    def watched(self: Step, images: Tensor, *more: Any) -> Tensor:
        seen.append(images.clone())
        return gradients(self, images, *more)

    gradients = Step.gradients
    monkeypatch.setattr(Step, "gradients", watched)
    for side in (None, 3):
        fit(network(), pictures(), config(RECIPE.changed(epochs=2, cutout=side)), CLASSIFICATION)
    count = len(seen) // 4
    plain, cut = (
        torch.stack([*map(torch.cat, (run[:count], run[count:]))]) for run in (seen[: 2 * count], seen[2 * count :])
    )
    changed = plain != cut
    assert torch.equal(cut[changed], torch.zeros(int(changed.sum())))
    areas = (cut == 0).all(2).sum((2, 3))
    assert areas.max() == 9
    assert areas.min() >= 4
    assert not torch.equal((cut == 0).all(2)[0], (cut == 0).all(2)[1])


def test_ranks_share_the_squares_of_a_batch(monkeypatch: pytest.MonkeyPatch) -> None:
    whole, parts = epoch(4), []
    monkeypatch.setattr(ranks, "count", lambda: 3)
    for rank in range(3):
        monkeypatch.setattr(ranks, "rank", lambda rank=rank: rank)
        shares = ((images[ranks.share(len(images))], target) for images, target in ones())
        parts.append([images for images, _ in cutout.blanked(shares, 4, COUNT, SIZE, 1, 0)])
    assert torch.equal(whole, torch.cat([part for step in zip(*parts, strict=True) for part in step]))


def test_a_training_with_cutout_is_another_one_and_repeats_bit_for_bit(command: Command, workplace: Path) -> None:
    line = ("prune.train", "--cfg", NARROW, *SMALL)
    plain = raw(Path(command(*line).path))["state_dict"]
    done = command(*line, "--cutout", "3", "--save", "cut.pth", "--run_dir", "runs/cut")
    cut = raw(Path(done.path))["state_dict"]
    assert any(not torch.equal(plain[name], value) for name, value in cut.items())
    again = raw(Path(command(*line, "--cutout", "3", "--save", "again.pth").path))["state_dict"]
    assert all(torch.equal(again[name], value) for name, value in cut.items())
    other = command(*line, "--cutout", "2", "--save", "cut.pth", "--run_dir", "runs/cut", "--resume")
    assert_refused(other, 2, "cutout 3 -> 2")


@pytest.mark.parametrize(
    ("flags", "said"),
    [
        (("--cutout", "8"), "--cutout 8 can hide a whole picture of 8x8"),
        (("--cutout", "0"), "is not an integer of at least 1"),
    ],
)
def test_what_cutout_cannot_do_is_refused(flags: tuple[str, ...], said: str, command: Command, workplace: Path) -> None:
    assert_refused(command("prune.train", "--cfg", NARROW, *SMALL, *flags), 2, said)
    assert not Path("models_save").exists()


def test_a_quantized_training_takes_it_and_says_so(command: Command, workplace: Path) -> None:
    few = [flag for flag in SMALL if flag != "--quiet"]
    done = command("quant.wqaq", "--Wbits", "4", "--Abits", "4", "--cfg", NARROW, *few, "--cutout", "3")
    assert done.code == 0, done.err
    assert "not mirrored, --cutout 3; " in done.err


def test_an_evaluation_takes_no_cutout(command: Command, workplace: Path) -> None:
    assert_refused(
        command("prune.train", "--evaluate", "--cutout", "3"), 2, "--evaluate trains nothing, so --cutout has no"
    )


def test_a_detector_takes_no_cutout(command: Command, workplace: Path) -> None:
    done = command(
        "prune.train", "--arch", "torchvision:ssdlite320_mobilenet_v3_large", "--dataset", "scenes", "--cutout", "4"
    )
    assert_refused(done, 2, "--cutout 4 could hide objects whose boxes remain")
