"""The one training loop of every command, and the one way to measure accuracy.

Recipes (which optimizer, how long) are in recipe.py; what a penalty or a constraint means, in prune and quant.
"""

from __future__ import annotations

import math
import sys
import time
from collections.abc import Callable
from functools import partial
from typing import Any, TypeVar

import torch
from torch import Tensor, nn
from torch.nn import functional as F
from tqdm import tqdm

from engine.data.splits import Data, steps
from engine.errors import DIVERGED, UserError
from engine.system import device as devices, terminal
from engine.tasks.classification import evaluate
from engine.training.progress import FitConfig, Progress, Row

Model = TypeVar("Model", bound=nn.Module)


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
