"""What the steps of an epoch add up to. A GPU is not waited for: its sums stay there until somebody asks."""

from __future__ import annotations

import math

import torch
from torch import Tensor


class Tally:
    """Sums over steps.

    Args:
        deferred: keep sums as tensors; a loss that is not finite is then found when they are read.

    Attributes:
        seen: pictures.
        worst: of the first step whose loss was not finite, its number and that loss.
    """

    def __init__(self, deferred: bool = False) -> None:
        self.deferred, self.seen = deferred, 0
        self.worst: tuple[int, float] | None = None
        self._sums = [0.0, 0.0, 0.0]
        self._waiting: list[tuple[int, int, Tensor]] = []

    def add(self, step: int, found: Tensor, pictures: int) -> None:
        """Count a step.

        Args:
            found: what `Step.gradients` gives.
        """
        self.seen += pictures
        self._waiting.append((step, pictures, found))
        if not self.deferred:
            self.read()

    def read(self) -> tuple[float, float, int]:
        """Sums of the loss and of what was added of each picture, and the right answers."""
        if self._waiting:
            values = torch.stack([found for *_, found in self._waiting]).tolist()  # one wait for a GPU
            for (step, pictures, _), (loss, added, right) in zip(self._waiting, values, strict=True):
                if self.worst is None and not math.isfinite(loss + added):
                    self.worst = (step, loss + added)
                for n, value in enumerate((loss * pictures, added * pictures, right)):
                    self._sums[n] += value
            self._waiting.clear()
        loss, added, right = self._sums
        return loss, added, int(right)

    def state(self) -> dict[str, float | int]:
        loss, penalty, right = self.read()
        return {"loss": loss, "penalty": penalty, "right": right, "seen": self.seen}

    def load(self, state: dict[str, float | int]) -> None:
        """Put back what `state` gave."""
        self._sums = [float(state["loss"]), float(state["penalty"]), float(state["right"])]
        self.seen = int(state["seen"])
