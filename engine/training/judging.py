"""Measure the score of a network or of a file's network, with progress on stderr."""

from __future__ import annotations

import sys
from collections.abc import Mapping
from typing import Any

from torch import nn
from tqdm import tqdm

from engine.cli.options import Works
from engine.data.splits import Data
from engine.numerics.batches import at_a_time
from engine.system import device, terminal
from engine.tasks.base import Evaluation, Task
from engine.tasks.of import task_of
from engine.training.choose_data import open_data
from engine.training.opened import Opened


def evaluate_file(options: Works, opened: Opened[nn.Module]) -> dict[str, Any]:
    """Measure the score of a file's network for --evaluate, without training or writing."""
    where = device.choose(options.machine.device)
    data = open_data(options, where, opened.checkpoint)
    network = opened.at(data.info.image_size).network.to(where)
    task = task_of(network, data.info, opened.checkpoint.arch)
    found = evaluate(options, network, data, task, "the file")
    return {
        "text": in_words(task, found.score, data, more=found.more),
        "path": opened.path,
        task.score.name: found.score,
        "loss": found.loss,
        **found.more,
    }


def evaluate(options: Works, model: nn.Module, data: Data, task: Task, what: str = "") -> Evaluation:
    """Evaluate a network on its device; `what`, if given, is named on stderr meanwhile, as a CPU takes a while."""
    announced = bool(what) and not options.machine.quiet
    batch = at_a_time(options.data.eval_batch_size, device.choose(options.machine.device).type)
    if announced and not terminal.is_interactive():
        print(f"evaluating {what}", file=sys.stderr)
    with tqdm(total=len(data.test), desc=f"evaluating {what}", leave=False, file=sys.stderr,
              disable=not announced or not terminal.is_interactive()) as bar:  # fmt: skip
        return task.evaluate(model, data.test, batch, lambda: bar.update(batch))


def in_words(
    task: Task, score: float, data: Data, before: float | None = None, more: Mapping[str, float] | None = None
) -> str:
    """Word a score: `test accuracy 98.30 % on digits (360 pictures)`; with `before`, `98.90 % -> 98.30 %`.

    Args:
        more: the task's further figures, in percent.
    """
    others = "".join(f", {name} {value:.2f} %" for name, value in (more or {}).items())
    scores = " -> ".join(task.score.shown(value) for value in (before, score) if value is not None)
    return f"{data.part} {task.score.name} {scores}{others} on {data.info.quoted} ({len(data.test):,} pictures)"


def in_keys(
    task: Task, score: float, before: float | None = None, more: Mapping[str, float] | None = None
) -> dict[str, float]:
    """Return a score for a command's result: {"accuracy": 98.3}, and "accuracy_before" if there is a score before."""
    name = task.score.name
    return {**({} if before is None else {f"{name}_before": before}), name: score, **(more or {})}
