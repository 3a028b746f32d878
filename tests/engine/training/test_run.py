"""What a run announces: a notice if its epochs have few steps."""

from __future__ import annotations

import json
from collections.abc import Callable
from types import SimpleNamespace

import pytest

from tests.conftest import NARROW, SMALL

Command = Callable[..., SimpleNamespace]
LOUD = ("prune.train", "--cfg", NARROW, *(flag for flag in SMALL if flag != "--quiet"))


@pytest.mark.parametrize(
    ("batch", "words"),
    [(2000, "1 step of 1,437 pictures"), (160, "9 steps of 160 pictures"), (145, None)],
)
def test_an_epoch_of_few_steps_is_noticed(batch: int, words: str | None, command: Command) -> None:
    done = command(*LOUD, "--train_batch_size", batch)
    assert done.code == 0, done.err
    told = [line for line in done.err.splitlines() if line.startswith("notice: ")]
    assert told == ([f"notice: an epoch has {words}: give a smaller --train_batch_size"] if words else [])


def test_a_quiet_run_and_a_judgement_say_nothing_of_steps(command: Command) -> None:
    few = ("--train_batch_size", 500)
    assert "notice" not in command(*LOUD, *few, "--quiet").err
    assert "notice" not in command(*LOUD, "--evaluate", "models_save/nin.pth").err
    json.loads(command(*LOUD, *few, "--save", "again.pth", "--json").out)
