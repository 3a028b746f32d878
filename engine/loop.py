"""The one training loop of every command, and the one way to measure accuracy.

Recipes (which optimizer, how long) are in recipe.py; what a penalty or a constraint means, in prune and quant.
"""

from __future__ import annotations

import math
import sys
import time
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from typing import Any, TypeVar

import torch
from torch import Tensor, nn
from torch.nn import functional as F
from tqdm import tqdm

from engine import device as devices
from engine import terminal
from engine.data import Data, Split, steps
from engine.errors import BAD_CHECKPOINT, DIVERGED, UserError
from engine.recipe import Recipe

Row = dict[str, float]
Model = TypeVar("Model", bound=nn.Module)


@dataclass(frozen=True)
class FitConfig:
    """How one stage is trained; all of it goes into the run folder."""

    recipe: Recipe
    seed: int = 1
    precision: str = "fp32"  # or "bf16", of the training steps; judging is always fp32
    eval_batch_size: int = 500
    quiet: bool = False


@dataclass
class Judgement:
    """Accuracy in percent and mean cross-entropy over all pictures of a split; logits (N, classes) on the CPU."""

    accuracy: float
    loss: float
    logits: Tensor


@torch.no_grad()
def evaluate(
    model: nn.Module, split: Split, batch: int = 500, after_batch: Callable[[], None] | None = None
) -> Judgement:
    """Judge a network in eval mode, in its own arithmetic (fp32 or fp64); its training mode is put back."""
    was_training = model.training
    model.eval()
    tensors = [*model.parameters(), *model.buffers()]
    dtype = next((t.dtype for t in tensors if t.is_floating_point()), torch.float32)
    outputs, answers = [], []
    for images, labels in split.batches(batch):
        outputs.append(model(images.to(dtype)))
        answers.append(labels)
        if after_batch:
            after_batch()
    model.train(was_training)
    logits, labels = torch.cat(outputs).cpu(), torch.cat(answers).cpu()
    right = (logits.argmax(1) == labels).double().mean().item()
    return Judgement(100 * right, F.cross_entropy(logits, labels).item(), logits)


class Progress:
    """What a fit has done so far; everything needed to go on as if it had never stopped.

    Attributes:
        epoch, step: whole epochs, and steps of the one under way.
        loss, penalty, right, seen: sums over those steps: of the cross-entropy of each picture, of what the penalty
            added to it, of right answers, of pictures.
        rows: the metrics of whole epochs.
    """

    COUNTS = ("epoch", "step", "loss", "penalty", "right", "seen")

    def __init__(self, model: nn.Module, config: FitConfig, per_epoch: int) -> None:
        self.model, self.rows, self.per_epoch = model, list[Row](), per_epoch
        self.epoch = 0
        self._start_epoch()
        self.optimizer, self.schedule = config.recipe.start(model, config.recipe.epochs * per_epoch)

    def _start_epoch(self) -> None:
        self.step, self.loss, self.penalty, self.right, self.seen = 0, 0.0, 0.0, 0, 0

    def count(self, loss: float, penalty: float, right: int, seen: int) -> None:
        """One step more."""
        self.step += 1
        self.loss += loss
        self.penalty += penalty
        self.right += right
        self.seen += seen

    def close_epoch(self, row: Row) -> None:
        """One epoch more."""
        self.rows.append(row)
        self.epoch += 1
        self._start_epoch()

    def state_dict(self) -> dict[str, Any]:
        return {
            **{name: getattr(self, name) for name in self.COUNTS},
            "rows": self.rows,
            "model": self.model.state_dict(),
            "optimizer": self.optimizer.state_dict(),
            "schedule": self.schedule.state_dict(),
            "rng": devices.rng_state(next(self.model.parameters()).device),
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
            devices.set_rng_state(state["rng"])
            self.rows = list(state["rows"])
            for name in self.COUNTS:
                setattr(self, name, state[name])
            if self.schedule.last_epoch != self.epoch * self.per_epoch + self.step:
                raise ValueError(f"its schedule is at step {self.schedule.last_epoch}")
        except (KeyError, ValueError, RuntimeError, TypeError, AttributeError) as fault:
            what = (str(fault).splitlines() or [type(fault).__name__])[0]
            raise UserError(
                f"the state to resume does not fit this run ({what})", "start again without --resume", BAD_CHECKPOINT
            ) from fault


def fit(
    model: Model,
    data: Data,
    config: FitConfig,
    *,
    penalty: Callable[[Model], Tensor] | None = None,
    constrain: Callable[[Model], None] | None = None,
    on_epoch: Callable[[Model, int], None] | None = None,
    after_step: Callable[[Progress], None] | None = None,
    after_epoch: Callable[[Progress], None] | None = None,
    resume: dict[str, Any] | None = None,
) -> list[Row]:
    """Train `model` in place and return one row of metrics an epoch.

    ::

        for epoch:
            on_epoch(model, epoch)                      # e.g. freeze BN statistics late
            for batch:
                loss = cross_entropy(model(x), y) + penalty(model)     # slimming: s * sum|gamma|
                loss.backward(); optimizer.step(); schedule.step()
                constrain(model)                        # BNN: clip latent weights to [-1, 1]
                after_step(progress)                    # a signal: save, and stop
            judge on data.test; after_epoch(progress)   # the run folder keeps state and metrics

    Args:
        on_epoch: is called again, for the same epoch, where a run goes on in the middle of it.
        after_step: is also called between two batches of judging; what it raises ends the training.
        resume: what Progress.state_dict gave; training goes on from there, bit for bit.

    Raises:
        UserError: exit 5 at the first loss that is not finite, exit 3 for a state of something else.
    """
    recipe, device = config.recipe, next(model.parameters()).device
    batch = min(recipe.batch_size, len(data.train))
    per_epoch = steps(len(data.train), batch)
    progress = Progress(model, config, per_epoch)
    if resume:
        progress.load_state_dict(resume)
    for epoch in range(progress.epoch, recipe.epochs):
        started = time.monotonic()
        model.train()
        if on_epoch:
            on_epoch(model, epoch)
        batches = data.train.training_batches(batch, config.seed, epoch, progress.step)
        bar = tqdm(batches, f"epoch {epoch + 1}/{recipe.epochs}", per_epoch, leave=False, file=sys.stderr,
                   initial=progress.step, disable=config.quiet or not terminal.moves())  # fmt: skip
        for images, labels in bar:
            with devices.autocast(config.precision, device):
                logits = model(images)
            loss = F.cross_entropy(logits.float(), labels, label_smoothing=recipe.label_smoothing)
            added = penalty(model) if penalty else loss.new_zeros(())
            progress.optimizer.zero_grad(set_to_none=True)
            (loss + added).backward()
            right = (logits.detach().argmax(1) == labels).sum()
            shown = torch.stack([value.detach().double() for value in (loss, added, right)])
            value, extra, hits = shown.tolist()  # one wait for a GPU, not three
            if not math.isfinite(value + extra):
                raise _diverged(value + extra, progress)
            progress.optimizer.step()
            progress.schedule.step()
            if constrain:
                constrain(model)
            progress.count(value * len(labels), extra * len(labels), int(hits), len(labels))
            if after_step:
                after_step(progress)
        between = partial(after_step, progress) if after_step else None
        judged = evaluate(model, data.test, config.eval_batch_size, between)
        if not math.isfinite(judged.loss):
            raise _diverged(judged.loss, progress)
        row = {
            "epoch": epoch + 1,
            "lr": progress.optimizer.param_groups[0]["lr"],
            "train_loss": progress.loss / progress.seen,
            **({"train_penalty": progress.penalty / progress.seen} if penalty else {}),
            "train_accuracy": 100 * progress.right / progress.seen,
            f"{data.judged}_loss": judged.loss,
            f"{data.judged}_accuracy": judged.accuracy,
        }
        progress.close_epoch(row)
        if after_epoch:
            after_epoch(progress)
        if not config.quiet:
            _say(row, recipe.epochs, data.judged, time.monotonic() - started)
    return progress.rows


def _say(row: Row, epochs: int, judged: str, seconds: float) -> None:
    penalty = f"penalty {row['train_penalty']:.4f}  " if "train_penalty" in row else ""
    tqdm.write(
        f"epoch {row['epoch']:>3}/{epochs}  loss {row['train_loss']:.4f}  {penalty}"
        f"train {row['train_accuracy']:6.2f} %  {judged} {row[f'{judged}_accuracy']:6.2f} %  {seconds:.1f} s",
        file=sys.stderr,
    )


def _diverged(value: float, progress: Progress) -> UserError:
    gradients = [p.grad[p.grad.isfinite()].abs() for p in progress.model.parameters() if p.grad is not None]
    largest = max((g.max().item() for g in gradients if g.numel()), default=math.nan)
    return UserError(
        f"the loss became {value} in epoch {progress.epoch + 1}, step {min(progress.step + 1, progress.per_epoch)}, "
        f"at lr {progress.schedule.get_last_lr()[0]:.3g}; largest finite gradient {largest:.3g}",
        "start again with a smaller --lr",
        DIVERGED,
    )
