"""A turn: the steps that a device runs before the program waits for it."""

from __future__ import annotations

import time
from collections.abc import Callable

import torch

STEPS, SECONDS = 20, 0.1
"""Most steps and most seconds of a turn on a GPU. Training waits for a GPU once an epoch."""


class Turn:
    """A callable that runs the steps of one turn: one step on a CPU.

    Attributes:
        steps: number of steps.
    """

    def __init__(self, step: Callable[[], None], device: torch.device) -> None:
        self._step, self._on_gpu, self.steps = step, device.type == "cuda", 1
        if self._on_gpu:
            self()  # warm-up: libraries choose their algorithms
            started = time.perf_counter()
            self()
            self.steps = max(1, min(STEPS, int(SECONDS / (time.perf_counter() - started))))

    def __call__(self) -> None:
        for _ in range(self.steps):
            self._step()
        if self._on_gpu:
            torch.cuda.synchronize()
