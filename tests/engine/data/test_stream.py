"""Streamed pictures in the loop: a run that stops in the middle resumes bit for bit, with any reader."""

from __future__ import annotations

import io
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch

from engine.checkpoint import archive
from engine.cli.datasets import CROPS, IMAGENET
from engine.data import crops, stream
from engine.data.augment import generator, normalise
from engine.data.image_folder import listed
from engine.data.pictures import decode
from engine.system import ranks
from engine.tasks.classification import CLASSIFICATION
from engine.training.loop import fit
from engine.training.progress import Progress
from tests.tools import folders, training
from tests.tools.equality import same
from tests.tools.noise import equal_batches


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    return folders.write(tmp_path, {"train": 11, "test": 3}, ("ant", "bee", "cat", "dog"), 6)


@pytest.mark.parametrize("crop", CROPS)
@pytest.mark.parametrize("workers", [0, 2])
def test_an_epoch_may_begin_at_any_step(workers: int, crop: str, folder: Path) -> None:
    part = stream.load(listed(folder), torch.device("cpu"), 6, 0, workers, crop=crop).train
    whole = list(part.training_batches(16, 1, 0))
    assert len(whole) == 3
    assert equal_batches(whole[2:], part.training_batches(16, 1, 0, 2))
    assert not list(part.training_batches(16, 1, 0, 3))


@pytest.mark.parametrize("crop", CROPS)
def test_a_run_may_stop_in_the_middle_whatever_reads_the_pictures(crop: str, folder: Path) -> None:
    """The network draws from torch's global state (dropout); the loaders must not, or a resumed run would draw other numbers."""
    config = training.config(replace(training.RECIPE, epochs=2, batch_size=16))
    data = {workers: stream.load(listed(folder), torch.device("cpu"), 6, 0, workers, crop=crop) for workers in (0, 2)}
    whole, resumed, states = list[Progress](), list[Progress](), list[bytes]()

    def stop(progress: Progress) -> None:
        if progress.epoch == 1 and progress.step == 2:
            states.append(archive.to_bytes(progress.state_dict()))
            raise training.Stop

    fit(training.network(), data[0], config, CLASSIFICATION, after_epoch=whole.append)
    with pytest.raises(training.Stop):
        fit(training.network(), data[2], config, CLASSIFICATION, after_step=stop)
    state = torch.load(io.BytesIO(states[0]), weights_only=True)
    fit(training.network(), data[0], config, CLASSIFICATION, resume=state, after_epoch=resumed.append)
    assert same(whole[-1].state_dict(), resumed[-1].state_dict())


@pytest.mark.parametrize("flip", [True, False])
def test_random_parts_are_those_of_the_place_in_the_whole_batch(
    flip: bool, folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Batches equal a slow loop's crops of the files for any number of workers, and each rank has its share of them."""
    files = listed(folder)
    part = stream.load(files, torch.device("cpu"), 6, 0, 2, flip, IMAGENET).train
    order = torch.randperm(44, generator=generator(3, 5)).tolist()
    for step, (images, labels) in enumerate(part.training_batches(16, 3, 5)):
        chosen = [files.train[number] for number in order[16 * step : 16 * step + 16]]
        seeds = crops.seeds(len(chosen), generator(3, 5, step + 1)).tolist()
        cut = [np.array(crops.part(decode(path), 6, seed, flip)) for (path, _), seed in zip(chosen, seeds, strict=True)]
        assert torch.equal(images, normalise(torch.from_numpy(np.stack(cut)), part.info))
        assert labels.tolist() == [label for _, label in chosen]
    whole = list(part.training_batches(15, 3, 5))
    assert not torch.equal(whole[0][0], next(part.training_batches(15, 3, 6))[0])
    for mine in (slice(0, 8), slice(8, 15)):
        monkeypatch.setattr(ranks, "share", lambda length, mine=mine: mine)
        assert equal_batches([tuple(each[mine] for each in batch) for batch in whole], part.training_batches(15, 3, 5))


def test_judged_are_middles_and_statistics_are_theirs(folder: Path) -> None:
    files = listed(folder)
    data = stream.load(files, torch.device("cpu"), 4, 0, 0, crop=IMAGENET)
    cut = [np.array(crops.middle(decode(path), 4, IMAGENET)) for path, _ in files.train]
    pixels = np.stack(cut).reshape(-1, 3) / 255
    assert data.info.mean == pytest.approx(pixels.mean(0), abs=1e-4)
    assert data.info.std == pytest.approx(pixels.std(0), abs=1e-4)
    assert data.info == data.train.info == data.test.info
    ((images, _),) = data.train.batches(100)
    assert torch.equal(images, normalise(torch.from_numpy(np.stack(cut)), data.info))
