"""The sums over an epoch's steps, kept on a GPU until they are read so that steps do not wait for it."""

from __future__ import annotations

import math

import torch
from torch import Tensor


class Tally:
    """Sums over steps.

    Args:
        deferred: keep results as tensors; a non-finite loss is then found only when they are read.

    Attributes:
        seen: number of pictures.
        worst: number and loss of the first step with a non-finite loss.
    """

    def __init__(self, deferred: bool = False) -> None:
        self.deferred, self.seen = deferred, 0
        self.worst: tuple[int, float] | None = None
        self._sums = [0.0, 0.0, 0.0]
        self._waiting: list[tuple[int, int, Tensor]] = []

    def add(self, step: int, found: Tensor, pictures: int) -> None:
        """Add a step.

        Args:
            found: the result of `Step.gradients`.
        """
        self.seen += pictures
        self._waiting.append((step, pictures, found))
        if not self.deferred:
            self.read()

    def read(self) -> tuple[float, float, int]:
        """Return the sums of loss and penalty over all pictures, and the number of right answers."""
        if self._waiting:
            values = torch.stack([found for *_, found in self._waiting]).tolist()  # waits for a GPU once
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
        """Restore the sums from `state`."""
        self._sums = [float(state["loss"]), float(state["penalty"]), float(state["right"])]
        self.seen = int(state["seen"])
