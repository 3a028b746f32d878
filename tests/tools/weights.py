"""State dicts of a user's network, for tests of --weights."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from engine.checkpoint import format as checkpoint
from engine.checkpoint.format import Checkpoint
from tests.tools import cases

DECLARED = "tests.tools.residual:residual"
ARCH = "tests.tools.cases:Residual"
QUIET = ("--quiet", "--cpu")
DIGITS = ("--dataset", "digits", "--image_size", "8", *QUIET)
OWN = ("--arch", ARCH, "--weights", "own.pth")
HEAD = ["head.fc.weight", "head.fc.bias"]


def network(classes: int = 10, seed: int = 0) -> Any:
    """Return a user's network whose statistics and scales differ from a fresh network's."""
    torch.manual_seed(seed)
    made = cases.Residual(classes)
    for name, tensor in made.state_dict().items():
        if tensor.is_floating_point() and "weight" not in name:
            tensor.uniform_(0.5, 1.5)
    return made.eval()


def written(path: str, state: Any) -> dict[str, Tensor]:
    torch.save(state, path)
    return state


def described(path: str) -> Checkpoint:
    found = checkpoint.load(Path(path))
    assert isinstance(found, Checkpoint)
    return found
