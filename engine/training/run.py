"""Train in a run folder, from the start or from where a run stopped; judge the network and write its file.

run = start.run(network)
rows, recipe = run.train(recipe, stage)
found, path = run.finish(replace(stage, epochs=recipe.epochs))
"""

from __future__ import annotations

import sys
from collections.abc import Callable
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any, cast

import torch
from torch import nn

from engine.checkpoint.history import Stage
from engine.checkpoint.words import counted
from engine.cli.datasets import SHIFT
from engine.cli.options import Trains
from engine.data.splits import Data, steps
from engine.errors import UserError
from engine.numerics.batches import at_a_time
from engine.numerics.layout import channels_last
from engine.system import ranks, signals
from engine.system.messages import notice
from engine.tasks.base import Evaluation
from engine.training import bf16, loop, onednn, together
from engine.training.experiment import Experiment
from engine.training.profiled import profiled
from engine.training.progress import EpochMetrics, FitConfig, Progress
from engine.training.recipe import Recipe
from engine.training.run_folder import RunFolder

FEW_STEPS = 10
"""Steps of an epoch below which a notice recommends a smaller batch: a recipe's epochs are then too few to learn."""


@dataclass
class Run:
    """One training of one network.

    Args:
        options: the command's options.
        network: trained in place.
        arch, arch_args: all that is needed to build the network again, besides its widths.
        folder: the open run folder; the caller closes it.
        fresh: whether the input file gave only its widths, see Experiment.write.
    """

    options: Trains
    experiment: Experiment
    data: Data
    network: nn.Module
    arch: str
    arch_args: dict[str, Any]
    folder: RunFolder
    fresh: bool = False
    complete: bool = field(default=False, init=False)  # whether the run was already complete

    def train(
        self, recipe: Recipe, stage: Stage, arch_args: dict[str, Any] | None = None, codes: bool = False,
        view: Callable[[int, int], nn.Module | None] | None = None, **hooks: Callable,
    ) -> tuple[list[EpochMetrics], Recipe]:  # fmt: skip
        """Train by `recipe` with the flags' changes; return the metrics of each epoch and the changed recipe.

        A complete run is not trained again, and no file is changed.

        Args:
            stage: the stage of this training, without its length.
            arch_args: for the fingerprint that --resume compares; the default is the network's.
            codes: whether the network computes with codes.
            view: returns a module that computes the same as the network in training, but faster, or None; called when
                the network is on its device, with the pictures of the whole training and of a batch.

        Raises:
            Stopped: at the first signal that asks for it, after the current step and its state are saved.
            UserError: as RunFolder.state and loop.fit.
        """
        channels_last(self.network.to(self.experiment.device))
        if self.experiment.device.type == "cpu":
            onednn.spare(self.network)
        recipe = self._changed(recipe)
        count = recipe.epochs * len(self.data.train)
        seen = view(count, min(recipe.batch_size, len(self.data.train))) if view is not None else None
        config = self._config(recipe, codes, seen is not None)
        fingerprint = self._fingerprint(config, stage, arch_args or self.arch_args)
        together.refuse(min(config.recipe.batch_size, len(self.data.train)))
        resume = self._resume_together(fingerprint)
        save, done = self.experiment.save, resume["epoch"] if resume else 0
        self.complete = done == config.recipe.epochs and self.folder.has_result(save)
        found = ranks.gathered((done, resume["step"] if resume else 0, self.complete))
        if len(set(found)) > 1:
            text = f"the processes find different files in {self.folder.path} and at {save}"
            raise UserError(text, "give --run_dir and --save in folders that all processes share")
        if self.complete:
            print(f"already complete: {save}", file=sys.stderr)
            rows = loop.fit(self.network, self.data, config, self.experiment.task, resume=resume)  # no step is left
            return rows, config.recipe
        self._begin(config, resume)
        rows = self._fit(config, fingerprint, seen, resume=resume, **hooks)
        self.folder.draw(rows, self.experiment.task)
        return rows, config.recipe

    def finish(self, stage: Stage) -> tuple[Evaluation, Path]:
        """Judge the network, write its file, and return the evaluation and the path."""
        found = self.experiment.evaluate(self.network, self.data)
        if self.complete:
            return found, self.experiment.save
        metrics = self.experiment.metrics(found, self.data)
        path = self.experiment.write(
            self.network, self.arch, self.arch_args, self.data, metrics, stage, fresh=self.fresh
        )
        self.folder.write_result(path)
        return found, path

    def _changed(self, recipe: Recipe) -> Recipe:
        """Return the recipe with the flags' changes."""
        chosen = self.options.training
        return recipe.changed(epochs=chosen.epochs, lr=chosen.lr, weight_decay=chosen.wd, batch_size=chosen.batch_size)

    def _config(self, recipe: Recipe, codes: bool, fused: bool) -> FitConfig:
        chosen, machine = self.options.training, self.options.machine
        how = bf16.settled(chosen.precision, self.network, self.data.info, self.experiment.device, codes)
        batch = at_a_time(self.options.data.eval_batch_size, self.experiment.device.type)
        return FitConfig(recipe, machine.seed, how, batch, machine.quiet, chosen.eval_every, codes, fused)

    def _fingerprint(self, config: FitConfig, stage: Stage, arch_args: dict[str, Any]) -> dict[str, Any]:
        """Return the settings that must be equal for a resumed run."""
        where, parent = self.experiment.device.type, self.experiment.parent
        return {
            **_plain(asdict(config.recipe)),
            "seed": config.seed,
            "precision": config.precision,
            **({"fused": True} if config.fused else {}),
            **{f"data_{key}": value for key, value in self.data.info.to_dict().items()},
            "device": where,
            **({"ranks": ranks.count()} if ranks.count() > 1 else {}),
            **({"threads": torch.get_num_threads()} if where == "cpu" else {}),  # the order of sums depends on them
            "torch": str(torch.__version__),
            "val": self.options.data.val,
            "source_sha256": parent.sha256 if parent else None,
            **stage.to_dict(),
            "arch": self.arch,
            "cfg": list(cast(list[int], self.network.cfg)),
            "arch_args": arch_args,
        }

    def _resume_together(self, fingerprint: dict[str, Any]) -> dict[str, Any] | None:
        """Read the state, on the first rank first, as it may replace a damaged state."""
        if not ranks.is_first():
            ranks.wait()
            return self._resume(fingerprint)
        found = self._resume(fingerprint)
        ranks.wait()
        return found

    def _resume(self, fingerprint: dict[str, Any]) -> dict[str, Any] | None:
        asked, folder = self.options.training.resume, self.folder
        if not asked:
            return None
        if asked != "auto":
            path = Path(asked)
            return folder.state(path / folder.state_path.name if path.is_dir() else path, fingerprint)
        if not folder.state_path.exists() and not folder.previous_path.exists():
            print(f"--resume: no state in {folder.path} yet, starting afresh", file=sys.stderr)
            return None
        return folder.state(folder.state_path, fingerprint)

    def _begin(self, config: FitConfig, resume: dict[str, Any] | None) -> None:
        """Clear another run's files from the folder, and record and announce this run."""
        if resume is None:
            self.folder.forget(self.experiment.save)
        flags = {k: str(v) if isinstance(v, Path) else v for k, v in self.options.flat().items()}
        words = self.options.words_without("--resume")
        self.folder.describe(flags, config, resume["rows"] if resume else [], words)
        if not config.quiet:
            self._announce(config, resume)
            self._say_few_steps(config)

    def _announce(self, config: FitConfig, resume: dict[str, Any] | None) -> None:
        data, recipe, count = self.data, config.recipe, sum(p.numel() for p in self.network.parameters())
        place = f"; resumed after epoch {resume['epoch']}, step {resume['step']}" if resume else ""
        print(
            f"{data.info.label}: {len(data.train):,} training and {len(data.test):,} {data.part} pictures, "
            f"{'mirrored in training' if data.info.flip else 'not mirrored'}"
            f"{f', --crop {data.info.crop}' if data.info.crop != SHIFT else ''}; "
            f"{count:,} parameters; {counted(recipe.epochs, 'epoch')} of batch {recipe.batch_size}, {recipe.optimizer} "
            f"lr {recipe.lr:g}; {self.experiment.device.type} {config.precision}{', fused' if config.fused else ''}{place}",
            file=sys.stderr,
        )

    def _say_few_steps(self, config: FitConfig) -> None:
        batch = min(config.recipe.batch_size, len(self.data.train))
        if (count := steps(len(self.data.train), batch)) < FEW_STEPS:
            notice(f"an epoch has {counted(count, 'step')} of {batch:,} pictures: give a smaller --train_batch_size")

    def _fit(
        self, config: FitConfig, fingerprint: dict[str, Any], view: nn.Module | None, **hooks: Any
    ) -> list[EpochMetrics]:
        """Run the training loop, saving to the run folder after each epoch and after each signal that asks for it."""
        at = [0]
        trace = self.folder.path / "trace.json" if self.options.training.profile and ranks.is_first() else None
        with signals.watching() as watch, profiled(trace) as stepped:

            def after_epoch(progress: Progress) -> None:
                self.folder.keep(progress, fingerprint)
                watch.poll(lambda: None)

            def keep(progress: Progress) -> None:
                loop.check_losses(progress)
                self.folder.keep(progress, fingerprint)

            def after_step(progress: Progress) -> None:
                if progress.step != at[0]:  # not between two batches of an evaluation
                    stepped()
                at[0] = progress.step
                watch.poll(lambda: keep(progress))

            with together.shared(view or self.network, self.network) as compute:
                return loop.fit(
                    self.network, self.data, config, self.experiment.task, view=compute,
                    after_step=after_step, after_epoch=after_epoch, **hooks,
                )  # fmt: skip


def _plain(values: dict[str, Any]) -> dict[str, Any]:
    return {key: list(value) if isinstance(value, tuple) else value for key, value in values.items()}
