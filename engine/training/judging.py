"""Measure the accuracy of a network or of a file's network, with progress on stderr."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Any

from torch import nn
from tqdm import tqdm

from engine.checkpoint.format import Checkpoint
from engine.cli.options import Works
from engine.data.splits import Data
from engine.system import device, terminal
from engine.tasks.classification import Judgement, evaluate
from engine.training.choose_data import open_data


def judge_file(options: Works, path: Path, model: nn.Module, checkpoint: Checkpoint) -> dict[str, Any]:
    """--evaluate: the accuracy of a file's network, nothing trained and nothing written."""
    where = device.choose(options.machine.device)
    data = open_data(options, where, checkpoint)
    known, size = checkpoint.dataset.image_size, data.info.image_size
    if known != size:
        print(f"notice: judged on pictures of {size}x{size}, the file is for {known}x{known}", file=sys.stderr)
    found = judged(options, model.to(where), data, "the file")
    text = f"{data.judged} accuracy {found.accuracy:.2f} % on {data.info.label} ({len(data.test):,} pictures)"
    return {"text": text, "path": path, "accuracy": found.accuracy, "loss": found.loss}


def judged(options: Works, model: nn.Module, data: Data, what: str = "") -> Judgement:
    """Accuracy of a network where it is; `what`, if anything, is printed while it is measured: on a CPU it takes a while."""
    batch, announced = options.data.eval_batch_size, bool(what) and not options.machine.quiet
    if announced and not terminal.moves():
        print(f"judging {what}", file=sys.stderr)
    with tqdm(total=len(data.test), desc=f"judging {what}", leave=False, file=sys.stderr,
              disable=not announced or not terminal.moves()) as bar:  # fmt: skip
        return evaluate(model, data.test, batch, lambda: bar.update(batch))
