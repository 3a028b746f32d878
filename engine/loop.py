"""The one training loop of every command, and the one way to measure accuracy.

Recipes (which optimizer, how long) are in recipe.py; what a penalty or a constraint means, in prune and quant.
"""

from __future__ import annotations

import math
import sys
import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, TypeVar

import torch
from torch import Tensor, nn
from torch.nn import functional as F
from tqdm import tqdm

from engine import device as devices
from engine.data import Data, Split, steps
from engine.errors import DIVERGED, UserError
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
def evaluate(model: nn.Module, split: Split, batch: int = 500) -> Judgement:
    """Judge a network in eval mode, in its own arithmetic (fp32 or fp64); its training mode is put back."""
    was_training = model.training
    model.eval()
    tensors = [*model.parameters(), *model.buffers()]
    dtype = next((t.dtype for t in tensors if t.is_floating_point()), torch.float32)
    outputs, answers = [], []
    for images, labels in split.batches(batch):
        outputs.append(model(images.to(dtype)).cpu())
        answers.append(labels.cpu())
    model.train(was_training)
    logits, labels = torch.cat(outputs), torch.cat(answers)
    right = (logits.argmax(1) == labels).double().mean().item()
    return Judgement(100 * right, F.cross_entropy(logits, labels).item(), logits)


class Progress:
    """What a fit has done so far; everything needed to go on as if it had never stopped."""

    def __init__(self, model: nn.Module, config: FitConfig, total_steps: int) -> None:
        self.model, self.epoch, self.rows = model, 0, list[Row]()
        self.optimizer, self.schedule = config.recipe.start(model, total_steps)

    def state_dict(self) -> dict[str, Any]:
        return {
            "epoch": self.epoch,
            "rows": self.rows,
            "model": self.model.state_dict(),
            "optimizer": self.optimizer.state_dict(),
            "schedule": self.schedule.state_dict(),
            "rng": torch.get_rng_state(),
        }

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Put everything back as `state_dict` found it."""
        self.model.load_state_dict(state["model"])
        self.optimizer.load_state_dict(state["optimizer"])
        self.schedule.load_state_dict(state["schedule"])
        torch.set_rng_state(state["rng"])
        self.epoch, self.rows = state["epoch"], list(state["rows"])


def fit(
    model: Model,
    data: Data,
    config: FitConfig,
    *,
    penalty: Callable[[Model], Tensor] | None = None,
    constrain: Callable[[Model], None] | None = None,
    on_epoch: Callable[[Model, int], None] | None = None,
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
            judge on data.test; after_epoch(progress)   # the run folder keeps state and metrics

    Args:
        resume: what Progress.state_dict gave; training goes on from there, bit for bit.

    Raises:
        UserError: exit 5 at the first loss that is not finite.
    """
    recipe, device = config.recipe, next(model.parameters()).device
    batch = min(recipe.batch_size, len(data.train))
    per_epoch = steps(len(data.train), batch)
    progress = Progress(model, config, recipe.epochs * per_epoch)
    if resume:
        progress.load_state_dict(resume)
    for epoch in range(progress.epoch, recipe.epochs):
        started = time.monotonic()
        model.train()
        if on_epoch:
            on_epoch(model, epoch)
        total_loss, right, seen = 0.0, 0, 0
        batches = data.train.training_batches(batch, config.seed, epoch)
        bar = tqdm(batches, f"epoch {epoch + 1}/{recipe.epochs}", per_epoch, leave=False, file=sys.stderr,
                   disable=config.quiet or not sys.stderr.isatty())  # fmt: skip
        for images, labels in bar:
            with devices.autocast(config.precision, device):
                logits = model(images)
            loss = F.cross_entropy(logits.float(), labels, label_smoothing=recipe.label_smoothing)
            if penalty:
                loss = loss + penalty(model)
            value = loss.item()
            if not math.isfinite(value):
                raise _diverged(value, epoch, progress.schedule)
            progress.optimizer.zero_grad(set_to_none=True)
            loss.backward()
            progress.optimizer.step()
            progress.schedule.step()
            if constrain:
                constrain(model)
            total_loss += value * len(labels)
            right += int((logits.argmax(1) == labels).sum())
            seen += len(labels)
        judged = evaluate(model, data.test, config.eval_batch_size)
        if not math.isfinite(judged.loss):
            raise _diverged(judged.loss, epoch, progress.schedule)
        row = {
            "epoch": epoch + 1,
            "lr": progress.optimizer.param_groups[0]["lr"],
            "train_loss": total_loss / seen,
            "train_accuracy": 100 * right / seen,
            f"{data.judged}_loss": judged.loss,
            f"{data.judged}_accuracy": judged.accuracy,
        }
        progress.rows.append(row)
        progress.epoch = epoch + 1
        if after_epoch:
            after_epoch(progress)
        if not config.quiet:
            _say(row, recipe.epochs, data.judged, time.monotonic() - started)
    return progress.rows


def _say(row: Row, epochs: int, judged: str, seconds: float) -> None:
    tqdm.write(
        f"epoch {row['epoch']:>3}/{epochs}  loss {row['train_loss']:.4f}  "
        f"train {row['train_accuracy']:6.2f} %  {judged} {row[f'{judged}_accuracy']:6.2f} %  {seconds:.1f} s",
        file=sys.stderr,
    )


def _diverged(value: float, epoch: int, schedule: Any) -> UserError:
    return UserError(
        f"the loss became {value} in epoch {epoch + 1} at lr {schedule.get_last_lr()[0]:.3g}",
        "take a smaller --lr" + ("; the last whole epoch is kept in the run folder" if epoch else ""),
        DIVERGED,
    )
