"""How many pictures are evaluated at a time."""

from __future__ import annotations

from collections.abc import Callable

import pytest

from engine.numerics import batches
from engine.tasks.classification import CLASSIFICATION
from tests.conftest import SMALL


def test_what_is_asked_counts_more_than_the_device() -> None:
    assert [batches.at_a_time(None, device) for device in ("cpu", "cuda")] == [50, 500]
    assert batches.at_a_time(7, "cuda") == 7


@pytest.mark.parametrize(("words", "batch"), [((), 50), (("--eval_batch_size", "13"), 13)], ids=["default", "13"])
def test_a_command_evaluates_so_many_at_a_time(
    words: tuple[str, ...], batch: int, command: Callable, monkeypatch: pytest.MonkeyPatch
) -> None:
    seen, real = [], type(CLASSIFICATION).evaluate

    def evaluate(self, model, split, size, *more):
        seen.append(size)
        return real(self, model, split, size, *more)

    monkeypatch.setattr(type(CLASSIFICATION), "evaluate", evaluate)
    done = command("prune.train", *SMALL, *words)
    assert done.code == 0, done.err
    assert set(seen) == {batch}
