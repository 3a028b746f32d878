"""The configuration and the progress of a training: everything that a resumed run needs."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from torch import nn

from engine.errors import BAD_CHECKPOINT, UserError, first_line
from engine.numerics.batches import ON_CPU
from engine.numerics.precision import Precision
from engine.system import device
from engine.training.recipe import Recipe
from engine.training.tally import Tally

EpochMetrics = dict[str, float]
"""One row of metrics.csv: epoch, lr, and the loss and score of both parts."""


@dataclass(frozen=True)
class FitConfig:
    """The configuration of one stage's training; all of it is written to the run folder.

    Args:
        precision: precision of the training steps; evaluation is exact.
        eval_every: number of epochs between evaluations; the last epoch is always evaluated.
        codes: whether the network computes with codes.
        fused: whether a fused view of it is trained, which adds in another order.
    """

    recipe: Recipe
    seed: int = 1
    precision: Precision = "fp32"
    eval_batch_size: int = ON_CPU
    quiet: bool = False
    eval_every: int = 1
    codes: bool = False
    fused: bool = False


class Progress:
    """The progress of a training, with everything needed to continue as if it had never stopped.

    Attributes:
        epoch: number of finished epochs.
        step: number of finished steps in the current epoch.
        tally: the sums over these steps.
        rows: the metrics of the finished epochs.
    """

    COUNTS = ("epoch", "step", "loss", "penalty", "right", "seen")
    """The keys of plain numbers in the state."""

    def __init__(self, model: nn.Module, config: FitConfig, per_epoch: int) -> None:
        self.model, self.rows, self.per_epoch = model, list[EpochMetrics](), per_epoch
        self.epoch = 0
        self._start_epoch()
        self.optimizer, self.schedule = config.recipe.start(model, config.recipe.epochs * per_epoch)

    def _start_epoch(self) -> None:
        self.step, self.tally = 0, Tally(next(self.model.parameters()).is_cuda)

    def close_epoch(self, row: EpochMetrics) -> None:
        """Finish an epoch and store its metrics."""
        self.rows.append(row)
        self.epoch += 1
        self._start_epoch()

    def state_dict(self) -> dict[str, Any]:
        return {
            "epoch": self.epoch,
            "step": self.step,
            **self.tally.state(),
            "rows": self.rows,
            "model": self.model.state_dict(),
            "optimizer": self.optimizer.state_dict(),
            "schedule": self.schedule.state_dict(),
            "rng": device.rng_state(next(self.model.parameters()).device),
        }

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Restore everything from `state_dict`.

        Raises:
            UserError: if it belongs to another network or optimizer, or is incomplete (exit 3).
        """
        try:
            self.model.load_state_dict(state["model"])
            self.optimizer.load_state_dict(state["optimizer"])
            self.schedule.load_state_dict(state["schedule"])
            device.set_rng_state(state["rng"])
            self.rows = list(state["rows"])
            self.epoch, self.step = state["epoch"], state["step"]
            self.tally.load(state)
            if self.schedule.last_epoch != self.epoch * self.per_epoch + self.step:
                raise ValueError(f"its schedule is at step {self.schedule.last_epoch}")
        except (KeyError, ValueError, RuntimeError, TypeError, AttributeError) as fault:
            raise UserError(
                f"the state to resume does not fit this run ({first_line(fault)})",
                "start again without --resume",
                BAD_CHECKPOINT,
            ) from fault
