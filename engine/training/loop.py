"""The training loop of every command.

recipe.py has the recipes (optimizer, length), engine/tasks the losses and scores, prune and quant the penalties and
constraints.
"""

from __future__ import annotations

import math
import sys
import time
from collections.abc import Callable
from functools import partial
from typing import Any, TypeVar

from torch import Tensor, nn
from tqdm import tqdm

from engine.checkpoint.schema import unsound
from engine.data.splits import Data, steps
from engine.errors import DIVERGED, UserError
from engine.numerics import random_state
from engine.system import ranks, terminal
from engine.tasks.base import Task
from engine.tasks.score import Score
from engine.training import recorded, together
from engine.training.progress import EpochMetrics, FitConfig, Progress

Model = TypeVar("Model", bound=nn.Module)


def fit(
    model: Model,
    data: Data,
    config: FitConfig,
    task: Task,
    *,
    view: nn.Module | None = None,
    penalty: Callable[[Model], Tensor] | None = None,
    constrain: Callable[[Model], None] | None = None,
    on_epoch: Callable[[Model, int], None] | None = None,
    after_step: Callable[[Progress], None] | None = None,
    after_epoch: Callable[[Progress], None] | None = None,
    resume: dict[str, Any] | None = None,
) -> list[EpochMetrics]:
    """Train `model` in place and return the metrics of each epoch.

    ::

        for epoch:
            on_epoch(model, epoch)                      # e.g. freeze BN statistics late
            for batch:
                loss = task.loss(model(x), y) + penalty(model)         # slimming: s * sum|gamma|
                loss.backward(); optimizer.step(); schedule.step()
                constrain(model)                        # BNN: clip latent weights to [-1, 1]
                after_step(progress)                    # after a signal: save and stop
            task.evaluate(model, data.test)             # accuracy, for classification
            after_epoch(progress)                       # the run folder saves state and metrics

    Args:
        view: a module that computes the same as the model in training, with its parameters; None takes the model.
        on_epoch: called before each epoch, and again if a run resumes in the middle of an epoch.
        after_step: also called between two batches of evaluation; an exception from it ends the training.
        resume: a state from Progress.state_dict; training continues from it, bit for bit.

    Raises:
        UserError: at the first non-finite loss, and after an epoch with a non-finite weight or running statistic (exit
            5), as codes of a quantized network hide it from the loss; for a state of another network (exit 3); for a
            network without a parameter to train (exit 2).
    """
    if not any(parameter.requires_grad for parameter in model.parameters()):
        raise UserError(
            "the network has no parameter to train", "train a network whose parameters have requires_grad=True"
        )
    compute = model if view is None else view
    recipe = config.recipe
    batch = min(recipe.batch_size, len(data.train))
    per_epoch = steps(len(data.train), batch)
    progress = Progress(model, config, per_epoch)
    if resume:
        progress.load_state_dict(resume)
    kind = recorded.kind(config, next(model.parameters()).device)
    step = kind(compute, model, config, task, progress.optimizer, penalty, constrain)
    for epoch in range(progress.epoch, recipe.epochs):
        started = time.monotonic()
        model.train()
        if on_epoch:
            on_epoch(model, epoch)
        step.start_epoch()
        batches = data.train.training_batches(batch, config.seed, epoch, progress.step)
        bar = tqdm(batches, f"epoch {epoch + 1}/{recipe.epochs}", per_epoch, leave=False, file=sys.stderr,
                   initial=progress.step, disable=config.quiet or not terminal.is_interactive())  # fmt: skip
        for images, target in bar:
            random_state.seed_step((config.seed, epoch, progress.step))
            whole = min(batch, len(data.train) - progress.step * batch)
            found = step.gradients(images, target, whole)
            progress.tally.add(progress.step + 1, found, whole)
            if progress.tally.worst:
                raise _diverged(progress)
            step.update()
            progress.schedule.step()
            progress.step += 1
            if after_step:
                after_step(progress)
        check_losses(progress)
        if ranks.count() > 1:
            together.compare_buffers(model)
        if wrong := unsound(model.state_dict()):
            raise _diverged(progress, wrong)
        row = _trained(progress, task, penalty is not None)
        if (epoch + 1) % config.eval_every == 0 or epoch + 1 == recipe.epochs:
            between = partial(after_step, progress) if after_step and ranks.count() == 1 else None
            row |= _judged(progress, data, task, config.eval_batch_size, between)
        progress.close_epoch(row)
        if after_epoch:
            after_epoch(progress)
        if not config.quiet:
            _say(row, recipe.epochs, task.score, data.part, time.monotonic() - started)
    return progress.rows


def _trained(progress: Progress, task: Task, penalised: bool) -> EpochMetrics:
    """Return the part of an epoch's row that training itself measures."""
    lost, added, right = progress.tally.read()
    seen = progress.tally.seen
    score = task.training_score(right, seen)
    return {
        "epoch": progress.epoch + 1,
        "lr": progress.optimizer.param_groups[0]["lr"],
        "train_loss": lost / seen,
        **({"train_penalty": added / seen} if penalised else {}),
        **({} if score is None else {f"train_{task.score.name}": score}),
    }


def _judged(
    progress: Progress, data: Data, task: Task, batch: int, between: Callable[[], None] | None
) -> dict[str, float]:
    """Evaluate the network, and return the other part of the row.

    Raises:
        UserError: if the loss is not finite (exit 5).
    """
    found = task.evaluate(progress.model, data.test, batch, between)
    if not math.isfinite(found.loss):
        raise _diverged(progress, f"the loss became {found.loss}")
    return {f"{data.part}_loss": found.loss, f"{data.part}_{task.score.name}": found.score}


def check_losses(progress: Progress) -> None:
    """Wait for the losses so far and check them.

    Raises:
        UserError: if one is not finite (exit 5).
    """
    progress.tally.read()
    if progress.tally.worst:
        raise _diverged(progress)


def _say(row: EpochMetrics, epochs: int, score: Score, part: str, seconds: float) -> None:
    penalty = f"penalty {row['train_penalty']:.4f}  " if "train_penalty" in row else ""
    scores = {name: row.get(f"{name}_{score.name}") for name in ("train", part)}
    shown = "".join(f"{name} {value:6.2f} {score.unit}  " for name, value in scores.items() if value is not None)
    tqdm.write(
        f"epoch {row['epoch']:>3}/{epochs}  loss {row['train_loss']:.4f}  {penalty}{shown}{seconds:.1f} s",
        file=sys.stderr,
    )


def _diverged(progress: Progress, what: str = "") -> UserError:
    step = min(progress.step + 1, progress.per_epoch)
    if progress.tally.worst:
        step, loss = progress.tally.worst
        what = f"the loss became {loss}"
    gradients = [p.grad[p.grad.isfinite()].abs() for p in progress.model.parameters() if p.grad is not None]
    largest = max((g.max().item() for g in gradients if g.numel()), default=math.nan)
    return UserError(
        f"{what} in epoch {progress.epoch + 1}, step {step}, "
        f"at lr {progress.schedule.get_last_lr()[0]:.3g}; largest finite gradient {largest:.3g}",
        "start again with a smaller --lr",
        DIVERGED,
    )
