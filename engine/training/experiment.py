"""The steps of every command that writes a checkpoint: check the paths, choose device and data, judge, save.

Training commands use it through start.py; run.py adds the run folder.
"""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import torch
from torch import nn

from engine.checkpoint import format as checkpoint
from engine.checkpoint.format import Checkpoint, Metrics
from engine.checkpoint.history import Stage, Trained
from engine.checkpoint.provenance import Origin
from engine.cli.flags import without
from engine.cli.naming import refuse_input
from engine.cli.options import Writes
from engine.data.splits import Data
from engine.system import device, ranks
from engine.system.files import OTHER_SAVE, check_writable
from engine.tasks.base import Evaluation, Task
from engine.training import judging
from engine.training.choose_data import open_data


class Experiment:
    """One run of one command.

    Args:
        options: the command's options.
        save: the default output file; the path is checked here, before any work.
        source: the input file, if any.
        parent: the checkpoint in `source`.

    Raises:
        UserError: if the output cannot be written (exit 6); if it is the input file, without --overwrite (exit 2).

    Attributes:
        task: what `evaluate` judges by. Each command sets it once network and pictures are known; there is no default, as
            a detector would then be judged as a classifier.
    """

    task: Task

    def __init__(
        self, options: Writes, save: Path, source: Path | None = None, parent: Checkpoint | None = None
    ) -> None:
        self.options, self.source, self.parent = options, source, parent
        self.save = options.output.save or save
        if source and not options.output.overwrite:
            refuse_input(self.save, [source], "name another --save, or add --overwrite")
        if ranks.is_first():
            check_writable(self.save, OTHER_SAVE)
        self.device = device.choose(options.machine.device)
        torch.manual_seed(options.machine.seed)

    def data(self, fresh: bool = False) -> Data:
        """Open the data set of the flags, else of the input file; see choose_data.open_data."""
        return open_data(self.options, self.device, self.parent, fresh)

    def evaluate(self, model: nn.Module, data: Data, what: str = "") -> Evaluation:
        """Evaluate a network on the flags' device; `what`, if given, is named on stderr meanwhile."""
        return judging.evaluate(self.options, model.to(self.device), data, self.task, what)

    def metrics(self, found: Evaluation, data: Data, **extra: Any) -> Metrics:
        """Return the metrics of the evaluated weights."""
        return Metrics(found.score, found.loss, len(data.test), data.part, {**found.more, **extra})

    def write(
        self, model: nn.Module, arch: str, arch_args: dict[str, Any], data: Data, metrics: Metrics, *stages: Stage,
        fresh: bool = False,
    ) -> Path:  # fmt: skip
        """Save the checkpoint of `made`, the last step of a command."""
        return self.store(self.made(model, arch, arch_args, data, metrics, *stages, fresh=fresh))

    def made(
        self, model: nn.Module, arch: str, arch_args: dict[str, Any], data: Data, metrics: Metrics, *stages: Stage,
        fresh: bool = False,
    ) -> Checkpoint:  # fmt: skip
        """Return the checkpoint of this command. A resumed run makes the same one as an uninterrupted one.

        Args:
            stages: the stages of this command, which follow the input file's history.
            fresh: whether the input file gave only its widths, and no history.
        """
        before = self.parent.history if self.parent and not fresh else ()
        val = self.options.data.val  # later stages may hold out as many pictures
        done = tuple(replace(stage, val=val) if isinstance(stage, Trained) and val else stage for stage in stages)
        command = without(self.options.words, "--resume")  # a resumed run has the result of this command
        origin = Origin(
            command, self.options.machine.seed, self.source, self.parent.sha256 if self.parent else None
        )  # the hash of the bytes that were read, as the file may have been replaced since
        return checkpoint.make(model, arch, arch_args, data.info, metrics, (*before, *done), origin)

    def store(self, made: Checkpoint) -> Path:
        """Save a checkpoint and return its path."""
        if ranks.is_first():
            checkpoint.save(self.save, made)
        ranks.wait()
        return self.save
