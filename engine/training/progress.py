"""How a training is configured, and how far it has come: everything that a resumed run needs."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from torch import nn

from engine.errors import BAD_CHECKPOINT, UserError, first_line
from engine.system import device
from engine.system.precision import Precision
from engine.training.recipe import Recipe
from engine.training.tally import Tally

EpochMetrics = dict[str, float]
"""One line of metrics.csv: epoch, lr, and the loss and score of both parts."""


@dataclass(frozen=True)
class FitConfig:
    """How one stage is trained; all of it goes into the run folder.

    Args:
        precision: of the training steps; evaluation is exact.
        eval_every: epochs after which the network is judged; after the last it always is.
        codes: whether the network computes with codes.
        fused: whether a view of it is trained, which rounds sums in another order.
    """

    recipe: Recipe
    seed: int = 1
    precision: Precision = "fp32"
    eval_batch_size: int = 500
    quiet: bool = False
    eval_every: int = 1
    codes: bool = False
    fused: bool = False


class Progress:
    """What a fit has done so far; everything needed to go on as if it had never stopped.

    Attributes:
        epoch, step: whole epochs, and steps of the one under way.
        tally: the sums over those steps.
        rows: the metrics of whole epochs.
    """

    COUNTS = ("epoch", "step", "loss", "penalty", "right", "seen")
    """Numbers in the state."""

    def __init__(self, model: nn.Module, config: FitConfig, per_epoch: int) -> None:
        self.model, self.rows, self.per_epoch = model, list[EpochMetrics](), per_epoch
        self.epoch = 0
        self._start_epoch()
        self.optimizer, self.schedule = config.recipe.start(model, config.recipe.epochs * per_epoch)

    def _start_epoch(self) -> None:
        self.step, self.tally = 0, Tally(next(self.model.parameters()).is_cuda)

    def close_epoch(self, row: EpochMetrics) -> None:
        """One epoch more."""
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
        """Put everything back as `state_dict` found it.

        Raises:
            UserError: exit 3 if it is of another network or optimizer, or a part of it is missing.
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
