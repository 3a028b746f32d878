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
from tqdm import tqdm

from engine import checkpoint, device, loop, signals, terminal
from engine.checkpoint import Checkpoint, Origin
from engine.data import Data
from engine.errors import BAD_CHECKPOINT, UserError
from engine.files import check_writable
from engine.flags import without
from engine.folder import RunFolder
from engine.matching import open_data
from engine.recipe import Recipe

SAVED = Path("models_save")


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
        self.source_sha256 = checkpoint.sha256(source) if source else None  # now: it may be replaced while we train
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
    ) -> tuple[list[loop.Row], Recipe]:
        """Fit with the flags' changes to `recipe`, in a run folder; returns the rows of metrics.

        The folder stays locked until `write`. A run that is complete is not trained and touches no file.

        Raises:
            Stopped: at the first signal that asks for it, the state of that very step saved.
            UserError: as RunFolder, its method state, and loop.fit.
        """
        args = self.args
        recipe = recipe.changed(epochs=args.epochs, lr=args.lr, weight_decay=args.wd, batch_size=args.train_batch_size)
        precision = device.precision(args.precision, self.device, quantized)
        config = loop.FitConfig(recipe, args.seed, precision, args.eval_batch_size, args.quiet)
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
        self, model: nn.Module, data: Data, config: loop.FitConfig, folder: RunFolder, identity: dict[str, Any],
        **more: Any,
    ) -> list[loop.Row]:  # fmt: skip
        """The loop, with the run folder behind it: saved after each epoch, and wherever a signal asks for it."""
        with signals.watching() as watch:

            def after_epoch(progress: loop.Progress) -> None:
                folder.keep(progress, identity)
                watch.poll(lambda: None)

            def after_step(progress: loop.Progress) -> None:
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

    def judge(self, model: nn.Module, data: Data, what: str = "") -> loop.Judgement:
        """Accuracy of a network; `what` is said while it is measured."""
        return judged(self.args, model.to(self.device), data, what)

    def metrics(self, judged: loop.Judgement, data: Data, **more: Any) -> dict[str, Any]:
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


def judge_file(args: argparse.Namespace, path: Path, model: nn.Module, content: Checkpoint) -> dict[str, Any]:
    """--evaluate: the accuracy of a file's network, nothing trained and nothing written."""
    where = device.choose(args.device)
    data = open_data(args, where, content)
    known, size = content["dataset"]["image_size"], data.info.image_size
    if known != size:
        print(f"notice: judged on pictures of {size}x{size}, the file is for {known}x{known}", file=sys.stderr)
    found = judged(args, model.to(where), data, "the file")
    text = f"{data.judged} accuracy {found.accuracy:.2f} % on {data.info.label} ({len(data.test):,} pictures)"
    return {"text": text, "path": path, "accuracy": found.accuracy, "loss": found.loss}


def judged(args: argparse.Namespace, model: nn.Module, data: Data, what: str = "") -> loop.Judgement:
    """Accuracy of a network where it is; `what`, if anything, is said while it is measured: on a CPU it takes a while."""
    said = bool(what) and not getattr(args, "quiet", False)
    if said and not terminal.moves():
        print(f"judging {what}", file=sys.stderr)
    with tqdm(total=len(data.test), desc=f"judging {what}", leave=False, file=sys.stderr,
              disable=not said or not terminal.moves()) as bar:  # fmt: skip
        return loop.evaluate(model, data.test, args.eval_batch_size, lambda: bar.update(args.eval_batch_size))


def makes(command: str, arch: str | None) -> str:
    """A command as a hint, for the network in question."""
    return command if arch in (None, "nin") else f"{command} --arch {arch}"


def find(given: Path | bool | None, default: Path, maker: str) -> Path:
    """The input file of a stage: as given, else (None, or True for a flag without a value) that of the stage before.

    Raises:
        UserError: exit 3, naming the command that makes the default file if that is the one that is missing.
    """
    path = given if isinstance(given, Path) else default
    try:
        there = path.exists()
    except OSError as fault:  # too long, or in a folder that may not be read
        raise UserError(f"{path}: {fault.strerror}", "check the path", BAD_CHECKPOINT) from fault
    if not there:
        words = ["check the path"] if path is given else []
        words += [f"make it with: python -m {maker}"] if path == default else []
        raise UserError(f"{path}: no such file", ", or ".join(words), BAD_CHECKPOINT)
    return path
