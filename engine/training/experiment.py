"""What the commands share between their flags and their networks: device, data, training, the file at the end."""

from __future__ import annotations

import argparse
import contextlib
import sys
from collections.abc import Callable
from dataclasses import asdict
from pathlib import Path
from typing import Any

import torch
from torch import nn

from engine.checkpoint import format as checkpoint
from engine.checkpoint.format import Checkpoint
from engine.checkpoint.provenance import Origin
from engine.cli.flags import without
from engine.data.splits import Data
from engine.errors import UserError
from engine.system import device, signals
from engine.system.files import check_writable, sha256
from engine.tasks.classification import Judgement
from engine.training import loop
from engine.training.choose_data import open_data
from engine.training.judging import judged
from engine.training.progress import FitConfig, Progress, Row
from engine.training.recipe import Recipe
from engine.training.run_folder import RunFolder


class Experiment:
    """One run of one command.

    Args:
        args: parsed flags.
        save: the file it writes unless --save says otherwise; checked here, before any work.
        source: the file it starts from, if any.

    Raises:
        UserError: exit 6 if the output cannot be written, exit 2 if it is the input and --overwrite is not given.
    """

    def __init__(self, args: argparse.Namespace, save: Path, source: Path | None = None) -> None:
        self.args, self.source = args, source
        self.save = args.save or save
        if source and self.save.resolve() == source.resolve() and not args.overwrite:
            raise UserError(f"{self.save} is both input and output", "name another --save, or add --overwrite")
        check_writable(self.save)
        self.source_sha256 = sha256(source) if source else None  # now: it may be replaced while we train
        self.device = device.choose(args.device)
        self._folder: RunFolder | None = None
        self._complete = False  # whether the run and its file were there before
        torch.manual_seed(args.seed)

    def data(self, parent: Checkpoint | None = None) -> Data:
        """The data set of the flags, else that of the input file; see matching.open_data."""
        return open_data(self.args, self.device, parent)

    def classes(self, data: Data) -> int:
        return self.args.classes or data.info.classes

    def train(
        self,
        model: nn.Module,
        data: Data,
        recipe: Recipe,
        quantized: bool = False,
        stage: dict[str, Any] | None = None,
        **hooks: Callable,
    ) -> tuple[list[Row], Recipe]:
        """Fit with the flags' changes to `recipe`, in a run folder; returns the rows of metrics.

        The folder stays locked until `write`. A run that is complete is not trained and touches no file.

        Raises:
            Stopped: at the first signal that asks for it, the state of that very step saved.
            UserError: as RunFolder, its method state, and loop.fit.
        """
        args = self.args
        recipe = recipe.changed(epochs=args.epochs, lr=args.lr, weight_decay=args.wd, batch_size=args.train_batch_size)
        precision = device.precision(args.precision, self.device, quantized)
        config = FitConfig(recipe, args.seed, precision, args.eval_batch_size, args.quiet)
        self._folder = folder = RunFolder(args.run_dir or Path("runs") / self.save.stem)
        try:
            if folder.owns(self.save):
                raise UserError(f"{self.save} is where the run keeps its own {self.save.name}", "name another --save")
            identity = self._identity(recipe, precision, data, stage or {})
            resume = self._resume(folder, identity)
            done = resume["epoch"] if resume else 0
            self._complete = done == recipe.epochs and folder.has_result(self.save)
            model.to(self.device).to(memory_format=torch.channels_last)
            if self._complete:
                print(f"already complete: {self.save}", file=sys.stderr)
                return loop.fit(model, data, config, resume=resume), recipe  # no step is left
            if resume is None:
                folder.forget(self.save)
            flags = {k: v for k, v in vars(args).items() if k not in ("command", "default_arch")}
            flags = {k: str(v) if isinstance(v, Path) else v for k, v in flags.items()}
            folder.describe(flags, config, resume["rows"] if resume else [])
            if not args.quiet:
                self._announce(model, data, recipe, precision, resume)
            rows = self._fit(model, data, config, folder, identity, resume=resume, **hooks)
            folder.draw(rows)
            return rows, recipe
        except BaseException:
            folder.close()
            raise

    def _fit(
        self, model: nn.Module, data: Data, config: FitConfig, folder: RunFolder, identity: dict[str, Any],
        **more: Any,
    ) -> list[Row]:  # fmt: skip
        """The loop, with the run folder behind it: saved after each epoch, and wherever a signal asks for it."""
        with signals.watching() as watch:

            def after_epoch(progress: Progress) -> None:
                folder.keep(progress, identity)
                watch.poll(lambda: None)

            def after_step(progress: Progress) -> None:
                watch.poll(lambda: folder.keep(progress, identity))

            return loop.fit(model, data, config, after_step=after_step, after_epoch=after_epoch, **more)

    def _identity(self, recipe: Recipe, precision: str, data: Data, stage: dict) -> dict[str, Any]:
        """What has to be the same for a resumed run to be the same run."""
        return {
            **{k: list(v) if isinstance(v, tuple) else v for k, v in asdict(recipe).items()},
            "seed": self.args.seed,
            "precision": precision,
            **{f"data_{k}": list(v) if isinstance(v, tuple) else v for k, v in asdict(data.info).items()},
            "device": self.device.type,
            **({"threads": torch.get_num_threads()} if self.device.type == "cpu" else {}),  # they share out the sums
            "torch": str(torch.__version__),
            "val": self.args.val,
            "source_sha256": self.source_sha256,
            **stage,
        }

    def _resume(self, folder: RunFolder, identity: dict[str, Any]) -> dict[str, Any] | None:
        if not self.args.resume:
            return None
        if self.args.resume != "auto":
            path = Path(self.args.resume)
            return folder.state(path / folder.state_path.name if path.is_dir() else path, identity)
        if not folder.state_path.exists() and not folder.previous_path.exists():
            print(f"--resume: nothing in {folder.path} yet, starting afresh", file=sys.stderr)
            return None
        return folder.state(folder.state_path, identity)

    def _announce(
        self, model: nn.Module, data: Data, recipe: Recipe, precision: str, resume: dict[str, Any] | None
    ) -> None:
        count = sum(p.numel() for p in model.parameters())
        place = f"; resumed after epoch {resume['epoch']}, step {resume['step']}" if resume else ""
        print(
            f"{data.info.label}: {len(data.train):,} training and {len(data.test):,} {data.judged} pictures, "
            f"{'mirrored in training' if data.info.flip else 'not mirrored'}; "
            f"{count:,} parameters; {recipe.epochs} epochs of batch {recipe.batch_size}, {recipe.optimizer} "
            f"lr {recipe.lr:g}; {self.device.type} {precision}{place}",
            file=sys.stderr,
        )

    def judge(self, model: nn.Module, data: Data, what: str = "") -> Judgement:
        """Accuracy of a network; `what` is said while it is measured."""
        return judged(self.args, model.to(self.device), data, what)

    def metrics(self, judged: Judgement, data: Data, **more: Any) -> dict[str, Any]:
        """The entry of a checkpoint that says how good exactly these weights are, and on what."""
        return {
            "accuracy": judged.accuracy,
            "loss": judged.loss,
            "pictures": len(data.test),
            "judged_on": data.judged,
            **more,
        }

    def write(
        self, model: nn.Module, arch: str, arch_args: dict[str, Any], data: Data,
        metrics: dict[str, Any], transforms: list[dict[str, Any]],
    ) -> Path:  # fmt: skip
        """Save the checkpoint; the last thing a command does. A resumed run writes what an uninterrupted one would."""
        with contextlib.closing(self._folder) if self._folder else contextlib.nullcontext():
            if self._complete:
                return self.save
            command = without(self.args.command, "--resume")  # the one whose result a resumed run gives
            if self.args.val and "epochs" in transforms[-1]:  # what --val may hold out of later stages
                transforms = [*transforms[:-1], {**transforms[-1], "val": self.args.val}]
            origin = Origin(command, self.args.seed, self.source, self.source_sha256)
            checkpoint.save(
                self.save,
                checkpoint.make(model, arch, arch_args, data.info, metrics, transforms, origin),
            )
            if self._folder:
                self._folder.write_result(self.save)
        return self.save
