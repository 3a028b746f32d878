"""Recipes: learning rates step by step, weight decay, and the original repository's numbers."""

from __future__ import annotations

import math
from dataclasses import asdict, replace

import torch
from torch import nn

from engine.training.recipe import ORIGINAL, Recipe, decay_groups, for_float

RECIPE = Recipe(epochs=3, batch_size=8, lr=0.05)


def network() -> nn.Module:
    return nn.Sequential(nn.Conv2d(3, 6, 3), nn.BatchNorm2d(6), nn.Flatten(), nn.Linear(96, 4))


def rates(recipe: Recipe, steps: int) -> list[float]:
    optimizer, schedule = recipe.start(nn.Linear(2, 2), steps)
    found = []
    for _ in range(steps):
        found.append(optimizer.param_groups[0]["lr"])
        optimizer.step()
        schedule.step()
    return [*found, optimizer.param_groups[1]["lr"]]


def test_schedules() -> None:
    cycle = rates(Recipe(1, 1, lr=0.5), 99)
    assert math.isclose(cycle[0], 0.5 / 25)
    assert math.isclose(cycle[29], 0.5)  # after 30 % of the steps
    assert cycle[:30] == sorted(cycle[:30])
    assert cycle[29:] == sorted(cycle[29:], reverse=True)
    middle = 29 + 35  # middle of a cosine down to almost 0
    assert math.isclose(cycle[middle], 0.25, rel_tol=1e-4)
    assert cycle[-1] < 0.5e-5
    stepped = rates(Recipe(4, 1, lr=0.5, schedule="steps", steps=(1, 3)), 40)
    torch.testing.assert_close(stepped, 10 * [0.5] + 20 * [0.05] + 11 * [0.005])


def test_recipes() -> None:
    assert asdict(ORIGINAL) == {
        "epochs": 300, "batch_size": 50, "optimizer": "adam", "lr": 0.01, "weight_decay": 0.0,
        "schedule": "steps", "steps": (80, 130, 180, 230, 280), "label_smoothing": 0.0,
    }  # fmt: skip
    adam, _ = ORIGINAL.start(network(), 300)
    sgd, _ = RECIPE.start(network(), 300)
    assert type(adam) is torch.optim.Adam
    assert sgd.defaults["momentum"] == 0.9
    assert sgd.defaults["nesterov"]
    decayed, others = decay_groups(network(), 5e-4)
    assert [p.ndim for p in decayed["params"]] == [4, 2]
    assert [p.ndim for p in others["params"]] == [1, 1, 1, 1]
    assert (decayed["weight_decay"], others["weight_decay"]) == (5e-4, 0.0)
    assert for_float("digits", refine=True).lr < for_float("digits").lr
    assert RECIPE.changed(lr=None, epochs=9) == replace(RECIPE, epochs=9)
