"""The frame of every command that trains: parent, restored or built network, default name, data, lock, result.

with Start(options, models.files, "_refine", source) as run:
    rows, recipe = run.train(run.network, recipe, stage)
    path = run.finish(run.network, stage)
"""

from __future__ import annotations

import shlex
import sys
from collections.abc import Callable
from dataclasses import asdict
from pathlib import Path
from types import TracebackType
from typing import TYPE_CHECKING, Any, Protocol

import torch
from torch import nn

from engine.checkpoint.format import Checkpoint
from engine.checkpoint.history import Stage
from engine.cli.naming import input_file, saved
from engine.cli.options import Trains
from engine.data.splits import Data
from engine.errors import UserError
from engine.system import device, signals
from engine.tasks.base import Evaluation
from engine.training import loop
from engine.training.experiment import Experiment
from engine.training.progress import EpochMetrics, FitConfig, Progress
from engine.training.recipe import Recipe
from engine.training.run_folder import RunFolder

if TYPE_CHECKING:
    from typing_extensions import Self


class Opened(Protocol):
    """A file and the network in it; models.files gives it."""

    @property
    def path(self) -> Path: ...

    @property
    def checkpoint(self) -> Checkpoint: ...

    @property
    def network(self) -> Any: ...


class Library(Protocol):
    """What a frame needs of the networks: models.files has it. engine itself imports none."""

    def open(self, path: Path, arch: str | None = None) -> Opened: ...

    def build(self, arch: str, cfg: Any = None, classes: int = 10, **arch_args: Any) -> Any: ...

    def size(self, arch: str, cfg: Any = None, **arch_args: Any) -> int | None: ...


class Start:
    """What a training command starts from, and the run that follows.

    Args:
        options: of the command.
        library: opens and builds networks.
        suffix: of the default output file: `_refine`.
        source: the file that it starts from, if any.
        fresh: take the widths of that file alone, and no weights.

    Attributes:
        network, data, arch, arch_args: there after `with`.
        parent: the checkpoint of `source`.
        default: the file that the command writes unless --save says otherwise.
    """

    def __init__(
        self, options: Trains, library: Library, suffix: str, source: Path | None = None, fresh: bool = False
    ) -> None:
        self.options, self.library, self.source, self.fresh = options, library, source, fresh
        self.opened = library.open(source, options.network.arch) if source else None
        self.parent = self.opened.checkpoint if self.opened else None
        prefix = self.parent.prefix if self.parent else options.network.prefix
        self.default = saved(prefix, suffix)
        self._folder: RunFolder | None = None
        self._complete = False  # whether the run and its file were there before

    def judged_file(self) -> Path:
        """The file of --evaluate.

        Raises:
            UserError: exit 3 if it is not there.
        """
        maker = shlex.join(self.options.words_without("--evaluate"))
        return input_file(self.options.training.evaluate, self.options.output.save or self.default, maker)

    def __enter__(self) -> Self:
        chosen = self.options.network
        if self.parent is None:
            self.library.size(chosen.name, chosen.cfg)  # one that does not fit is found before pictures are read
        self.experiment = Experiment(self.options, self.default, self.source, self.parent)
        self.data: Data = self.experiment.data(self.fresh)
        if self.opened and self.parent:
            self.arch, self.arch_args = self.parent.arch, self.parent.arch_args
        else:
            self.arch, self.arch_args = chosen.name, {"classes": chosen.classes or self.data.info.classes}
        if self.opened and not self.fresh:
            self.network = self.opened.network
        else:
            cfg = self.parent.cfg if self.parent else chosen.cfg
            self.network = self.library.build(self.arch, cfg, **self.arch_args)
        return self

    def __exit__(self, kind: type[BaseException] | None, fault: BaseException | None, at: TracebackType | None) -> None:
        if self._folder:
            self._folder.close()

    @property
    def full_args(self) -> dict[str, Any]:
        """`arch_args` with what the network adds: all that building it again takes."""
        return {**self.arch_args, **self.network.arch_args}

    def train(
        self, model: Any, recipe: Recipe, stage: Stage, arch_args: dict[str, Any] | None = None, precision: str | None = None,
        **hooks: Callable,
    ) -> tuple[list[EpochMetrics], Recipe]:  # fmt: skip
        """Fit with the flags' changes to `recipe`, in the run folder; gives the metrics of each epoch and the recipe.

        The folder stays locked until the `with` ends. A run that is complete is not trained and touches no file.

        Args:
            stage: what is done, without its length.
            arch_args: of the fingerprint that --resume compares; default: `full_args`.
            precision: of the training steps; default: that of --precision.

        Raises:
            Stopped: at the first signal that asks for it, the state of that very step saved.
            UserError: as RunFolder, its method state, and loop.fit.
        """
        chosen = self.options.training
        recipe = recipe.changed(
            epochs=chosen.epochs, lr=chosen.lr, weight_decay=chosen.wd, batch_size=chosen.batch_size
        )
        precision = device.precision(precision or chosen.precision, self.experiment.device)
        machine = self.options.machine
        config = FitConfig(recipe, machine.seed, precision, self.options.data.eval_batch_size, machine.quiet)
        self._folder = folder = RunFolder(chosen.run_dir or Path("runs") / self.experiment.save.stem)
        if folder.owns(self.experiment.save):
            raise UserError(
                f"{self.experiment.save} is where the run keeps its own {self.experiment.save.name}",
                "name another --save",
            )
        described = {"arch": self.arch, "cfg": list(model.cfg), "arch_args": arch_args or self.full_args}
        fingerprint = {**self._fingerprint(recipe, precision), **stage.to_dict(), **described}
        resume = self._resume(folder, fingerprint)
        done = resume["epoch"] if resume else 0
        self._complete = done == recipe.epochs and folder.has_result(self.experiment.save)
        model.to(self.experiment.device).to(memory_format=torch.channels_last)
        if self._complete:
            print(f"already complete: {self.experiment.save}", file=sys.stderr)
            return loop.fit(model, self.data, config, self.experiment.task, resume=resume), recipe  # no step is left
        if resume is None:
            folder.forget(self.experiment.save)
        flags = {k: str(v) if isinstance(v, Path) else v for k, v in self.options.flat().items()}
        folder.describe(flags, config, resume["rows"] if resume else [])
        if not machine.quiet:
            self._announce(model, recipe, precision, resume)
        rows = self._fit(model, config, folder, fingerprint, resume=resume, **hooks)
        folder.draw(rows, self.experiment.task)
        return rows, recipe

    def finish(self, model: Any, stage: Stage) -> tuple[Evaluation, Path]:
        """Judge the network and write its file; gives the evaluation and the path."""
        found = self.experiment.evaluate(model, self.data)
        if self._complete:
            return found, self.experiment.save
        metrics = self.experiment.metrics(found, self.data)
        path = self.experiment.write(model, self.arch, self.full_args, self.data, metrics, stage, fresh=self.fresh)
        if self._folder:
            self._folder.write_result(path)
        return found, path

    def _fit(
        self, model: nn.Module, config: FitConfig, folder: RunFolder, fingerprint: dict[str, Any], **hooks: Any
    ) -> list[EpochMetrics]:
        """The loop, with the run folder behind it: saved after each epoch, and wherever a signal asks for it."""
        with signals.watching() as watch:

            def after_epoch(progress: Progress) -> None:
                folder.keep(progress, fingerprint)
                watch.poll(lambda: None)

            def after_step(progress: Progress) -> None:
                watch.poll(lambda: folder.keep(progress, fingerprint))

            return loop.fit(
                model, self.data, config, self.experiment.task, after_step=after_step, after_epoch=after_epoch, **hooks
            )

    def _fingerprint(self, recipe: Recipe, precision: str) -> dict[str, Any]:
        """What has to be the same for a resumed run to be the same run, besides its stage and network."""
        where = self.experiment.device.type
        return {
            **_plain(asdict(recipe)),
            "seed": self.options.machine.seed,
            "precision": precision,
            **{f"data_{key}": value for key, value in _plain(asdict(self.data.info)).items()},
            "device": where,
            **({"threads": torch.get_num_threads()} if where == "cpu" else {}),  # they share out the sums
            "torch": str(torch.__version__),
            "val": self.options.data.val,
            "source_sha256": self.parent.sha256 if self.parent else None,
        }

    def _resume(self, folder: RunFolder, fingerprint: dict[str, Any]) -> dict[str, Any] | None:
        asked = self.options.training.resume
        if not asked:
            return None
        if asked != "auto":
            path = Path(asked)
            return folder.state(path / folder.state_path.name if path.is_dir() else path, fingerprint)
        if not folder.state_path.exists() and not folder.previous_path.exists():
            print(f"--resume: nothing in {folder.path} yet, starting afresh", file=sys.stderr)
            return None
        return folder.state(folder.state_path, fingerprint)

    def _announce(self, model: nn.Module, recipe: Recipe, precision: str, resume: dict[str, Any] | None) -> None:
        data, count = self.data, sum(p.numel() for p in model.parameters())
        place = f"; resumed after epoch {resume['epoch']}, step {resume['step']}" if resume else ""
        print(
            f"{data.info.label}: {len(data.train):,} training and {len(data.test):,} {data.part} pictures, "
            f"{'mirrored in training' if data.info.flip else 'not mirrored'}; "
            f"{count:,} parameters; {recipe.epochs} epochs of batch {recipe.batch_size}, {recipe.optimizer} "
            f"lr {recipe.lr:g}; {self.experiment.device.type} {precision}{place}",
            file=sys.stderr,
        )


def _plain(values: dict[str, Any]) -> dict[str, Any]:
    return {key: list(value) if isinstance(value, tuple) else value for key, value in values.items()}
