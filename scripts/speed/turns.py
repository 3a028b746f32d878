"""A turn: as many steps as a device does before it is waited for."""

from __future__ import annotations

import time
from collections.abc import Callable

import torch

STEPS, SECONDS = 20, 0.1
"""A GPU is waited for once an epoch in training; here, after so many steps, or so much time."""


class Turn:
    """Does some steps: one on a CPU.

    Attributes:
        steps: how many.
    """

    def __init__(self, step: Callable[[], None], device: torch.device) -> None:
        self._step, self._on_gpu, self.steps = step, device.type == "cuda", 1
        if self._on_gpu:
            self()  # libraries choose
            started = time.perf_counter()
            self()
            self.steps = max(1, min(STEPS, int(SECONDS / (time.perf_counter() - started))))

    def __call__(self) -> None:
        for _ in range(self.steps):
            self._step()
        if self._on_gpu:
            torch.cuda.synchronize()
