"""Totals over steps, read at once or later."""

from __future__ import annotations

import math

import torch

from engine.training.tally import Tally

STEPS = ((0.5, 0.25, 3, 4), (1.5, 0.0, 1, 4), (0.125, 1.0, 2, 2))


def filled(deferred: bool, *losses: float) -> Tally:
    made = Tally(deferred)
    for number, (loss, added, right, pictures) in enumerate(STEPS, 1):
        loss = losses[number - 1] if losses else loss
        made.add(number, torch.tensor([loss, added, right], dtype=torch.float64), pictures)
    return made


def test_sums_are_those_of_pictures() -> None:
    for deferred in (False, True):
        made = filled(deferred)
        assert made.read() == (0.5 * 4 + 1.5 * 4 + 0.125 * 2, 0.25 * 4 + 2, 6)
        assert made.seen == 10
        assert made.worst is None


def test_the_first_loss_that_is_not_finite_is_remembered() -> None:
    made = filled(False, 0.5, math.inf, math.nan)
    assert made.worst == (2, math.inf)
    late = filled(True, 0.5, math.inf, math.nan)
    assert late.worst is None  # not read yet
    late.read()
    assert late.worst == (2, math.inf)


def test_a_state_goes_on() -> None:
    made = filled(True)
    again = Tally()
    again.load(made.state())
    again.add(4, torch.tensor([1.0, 0.0, 1.0], dtype=torch.float64), 1)
    assert again.read() == (9.25, 3.0, 7)
    assert again.seen == 11
