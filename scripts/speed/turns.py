"""A turn: as many steps as a device does before it is waited for."""

from __future__ import annotations

from collections.abc import Callable

import torch

STEPS = {"cpu": 1, "cuda": 20}
"""A GPU is waited for once an epoch in training; here, after so many steps."""


def turn(step: Callable[[], None], device: torch.device) -> Callable[[], None]:
    """Does the steps of a turn."""

    def run() -> None:
        for _ in range(STEPS[device.type]):
            step()
        if device.type == "cuda":
            torch.cuda.synchronize()

    return run
