"""A small training: noise for pictures, a network with dropout, and short recipes."""

from __future__ import annotations

import torch
from torch import nn

from engine.data.info import DataInfo
from engine.data.splits import Data, TensorSplit
from engine.training.progress import FitConfig
from engine.training.recipe import Recipe

INFO = DataInfo("digits", "noise", 4, 6, (0.5,) * 3, (0.25,) * 3, pad=1)
RECIPE = Recipe(epochs=3, batch_size=8, lr=0.05)
ADAM = Recipe(3, 8, "adam", 0.01, 0.0, "steps", (1, 2), 0.1)


def pictures() -> Data:
    draws = torch.Generator().manual_seed(0)
    parts = []
    for count in (37, 11):
        images = torch.randint(0, 256, (count, 6, 6, 3), dtype=torch.uint8, generator=draws)
        parts.append(TensorSplit(images, torch.randint(0, 4, (count,), generator=draws), INFO, torch.device("cpu")))
    return Data(INFO, *parts)


def network() -> nn.Module:
    """Return a network with dropout, which draws from torch's global state."""
    torch.manual_seed(0)
    layers = (nn.Conv2d(3, 6, 3), nn.BatchNorm2d(6), nn.ReLU(), nn.Dropout(0.3), nn.Flatten(), nn.Linear(96, 4))
    return nn.Sequential(*layers)


def config(recipe: Recipe = RECIPE, **more) -> FitConfig:
    return FitConfig(recipe, quiet=True, **more)


class Stop(Exception):
    pass
