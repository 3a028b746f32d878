"""Streamed pictures in the loop: a run that stops in the middle goes on to the last bit, whatever reads the pictures."""

from __future__ import annotations

import io
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from engine.checkpoint import archive
from engine.data import stream
from engine.data.image_folder import listed
from engine.tasks.classification import CLASSIFICATION
from engine.training.loop import fit
from engine.training.progress import Progress
from tests.tools import training
from tests.tools.equality import same
from tests.tools.noise import equal_batches


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    draws = np.random.default_rng(0)
    for part, count in (("train", 11), ("test", 3)):
        for label in ("ant", "bee", "cat", "dog"):
            (tmp_path / part / label).mkdir(parents=True)
            for n in range(count):
                Image.fromarray(draws.integers(0, 256, (6, 6, 3), np.uint8)).save(tmp_path / part / label / f"{n}.png")
    return tmp_path


@pytest.mark.parametrize("workers", [0, 2])
def test_an_epoch_may_begin_at_any_step(workers: int, folder: Path) -> None:
    part = stream.load(listed(folder), torch.device("cpu"), 6, 0, workers).train
    whole = list(part.training_batches(16, 1, 0))
    assert len(whole) == 3
    assert equal_batches(whole[2:], part.training_batches(16, 1, 0, 2))
    assert not list(part.training_batches(16, 1, 0, 3))


def test_a_run_may_stop_in_the_middle_whatever_reads_the_pictures(folder: Path) -> None:
    """The network draws from torch's own state (dropout); the loaders must not, or a resumed run would draw otherwise."""
    config = training.config(replace(training.RECIPE, epochs=2, batch_size=16))
    data = {workers: stream.load(listed(folder), torch.device("cpu"), 6, 0, workers) for workers in (0, 2)}
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
