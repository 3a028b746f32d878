"""The groups of flags that commands share: data, training, output. network.py and machine.py have the others.

Spellings are the original repository's (`--train_batch_size`, `--eval_batch_size`). A command's own flags are in its
file.
"""

from __future__ import annotations

import argparse
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from engine.cli import datasets
from engine.cli.argtypes import channels, checkpoint, number, original, output, path, state
from engine.cli.flags import Options, flag, part, without
from engine.cli.machine import Machine, Printing
from engine.cli.naming import refuse_input
from engine.cli.network import Network
from engine.errors import UserError
from engine.numerics import precision
from engine.numerics.batches import ON_CPU, ON_GPU

LARGEST = 1e30
"""The largest --lr, --wd and --s. Optimizers multiply them, and fp32 has to hold the product."""


@dataclass(frozen=True, kw_only=True)
class Pictures(Options):
    """The pictures, and how they are read."""

    title = "data"
    dataset: str | None = flag(
        "--dataset", choices=["auto", *datasets.ALL],
        help="default auto: CIFAR-10 if it is on disk or can be downloaded, else the embedded digits",
    )  # fmt: skip
    root: Path = flag(
        "--data",
        type=path,
        default=Path("data"),
        metavar="DIR",
        help="folder of the pictures (default: data); an imagefolder has train/<class>/* and test/<class>/* (or val/)",
    )
    image_size: int | None = flag(
        "--image_size", type=number(int, 8, 1024), metavar="N", help="side of the pictures (default: the data set's)"
    )
    crop: str | None = flag(
        "--crop", choices=datasets.CROPS,
        help="imagefolder: how training cuts pictures; shift: the middle, shifted; imagenet: a random part, "
        "and the middle 224 of 256 for evaluation (default: the input file's, else shift)",
    )  # fmt: skip
    flip: bool | None = flag(
        "--flip", action=argparse.BooleanOptionalAction,
        help="mirror half of the pictures in training (default: as the input file's, else yes, but no for digits, mnist "
        "and scenes)",
    )  # fmt: skip
    val: int = flag(
        "--val", type=number(int, 0, 10**9), default=0, metavar="N",
        help="hold out N training pictures and evaluate on them, not on the test set",
    )  # fmt: skip
    skip_bad: bool = flag(
        "--skip_bad", action="store_true", help="imagefolder: leave out unreadable pictures (default: refuse them)"
    )  # fmt: skip
    eval_batch_size: int | None = flag(
        "--eval_batch_size", type=number(int, 1, 1_000_000), metavar="N",
        help=f"pictures to evaluate at a time (default: {ON_CPU}, or {ON_GPU} on a GPU)",
    )  # fmt: skip
    num_workers: int = flag(
        "--num_workers", type=number(int, 0, 1024), default=2, metavar="N",
        help="loader processes, for data sets too large for memory",
    )  # fmt: skip


@dataclass(frozen=True, kw_only=True)
class Normalisation(Options):
    """The normalisation of pixels; None takes the input file's, else the data set's."""

    mean: tuple[float, ...] | None = flag(
        "--mean", type=channels("--mean 0.485,0.456,0.406"), metavar="R,G,B",
        help="subtracted from pixels in [0, 1]; one number for grey (default: the input file's, else the data set's)",
    )  # fmt: skip
    std: tuple[float, ...] | None = flag(
        "--std", type=channels("--std 0.229,0.224,0.225", open_low=True), metavar="R,G,B",
        help="then pixels are divided by it (default: the input file's, else the data set's)",
    )  # fmt: skip


@dataclass(frozen=True, kw_only=True)
class DataFlags(Normalisation, Pictures):
    """Pictures with their normalisation."""

    title = "data"


@dataclass(frozen=True, kw_only=True)
class Training(Options):
    """The training; None takes the recipe's setting."""

    title = "training"
    epochs: int | None = flag("--epochs", type=number(int, 1, 1_000_000), metavar="N")
    lr: float | None = flag(
        "--lr", type=number(float, 0, LARGEST, open_low=True, hint="leave --lr out for the recipe's"), metavar="X"
    )
    wd: float | None = flag("--wd", type=number(float, 0, LARGEST, hint="leave --wd out for the recipe's"), metavar="X")
    batch_size: int | None = flag("--train_batch_size", type=number(int, 2, 1_000_000), metavar="N")
    recipe: str = flag(
        "--recipe", type=original, choices=["default", "original", "seed"], default="default",
        help="original (or seed): the original repository's Adam, lr 0.01, batch 50, 300 epochs with a step schedule "
        "(INT8: 30, with its own steps)",
    )  # fmt: skip
    resume: Path | str | None = flag(
        "--resume", nargs="?", const="auto", type=state, metavar="auto|F",
        help="continue from the run folder's state (or from F), as if never stopped",
    )  # fmt: skip
    evaluate: Path | bool | None = flag(
        "--evaluate", nargs="?", const=True, type=path, metavar="F",
        help="do not train; evaluate F (default: the file of --weights, else the file this command writes)",
    )  # fmt: skip
    precision: str = flag(
        "--precision", choices=precision.CHOICES, default="auto", help=precision.HELP,
    )  # fmt: skip
    fused: str = flag(
        "--fused", choices=["auto", "on", "off"], default="auto",
        help="batch norm, max-pool, activation and codes in one loop, compiled on first use (default: on if the "
        "training is long enough to gain)",
    )  # fmt: skip
    eval_every: int = flag(
        "--eval_every", type=number(int, 1, 1_000_000), default=1, metavar="N",
        help="evaluate after every N epochs, and after the last (default: 1)",
    )  # fmt: skip
    profile: bool = flag("--profile", action="store_true", help="trace some steps to trace.json in the run folder")
    run_dir: Path | None = flag("--run_dir", type=path, metavar="DIR", help="run folder (default: runs/NAME)")

    def __post_init__(self) -> None:
        if self.evaluate is None:
            return
        if self.resume is not None:
            raise UserError("--evaluate trains nothing, so there is nothing to --resume", "give one of them")
        for name in self.changed():
            if name != "--evaluate":
                raise UserError(f"--evaluate trains nothing, so {name} has no effect", f"leave {name} out")

    @property
    def original(self) -> bool:
        """Whether the original repository's recipe was chosen."""
        return self.recipe == "original"


@dataclass(frozen=True, kw_only=True)
class Output(Options):
    """Where to write."""

    title = "output"
    save: Path | None = flag("--save", type=output, metavar="F", help="the file to write")
    overwrite: bool = flag("--overwrite", action="store_true", help="allow the output file to replace the input file")


@dataclass(frozen=True, kw_only=True)
class Command(Options):
    """The options of every command; `words` is the command line as it was given."""

    ranks = False
    """Whether several processes may run it together, as torchrun's ranks."""
    machine: Any = part(Printing)
    words: tuple[str, ...] = ()


@dataclass(frozen=True, kw_only=True)
class Works(Command):
    """A command that shows pictures to a network."""

    network: Network = part(Network)
    data: DataFlags = part(DataFlags)
    machine: Machine = part(Machine)


@dataclass(frozen=True, kw_only=True)
class Writes(Works):
    """A command that also writes a checkpoint."""

    output: Output = part(Output, save={"type": checkpoint})


STATES = ("state.pth", "state.prev.pth")
"""The names of the state in a run folder, the newest first."""


@dataclass(frozen=True, kw_only=True)
class Trains(Writes):
    """A command that trains."""

    ranks = True
    training: Training = part(Training)

    def __post_init__(self) -> None:
        self.network.only_weights("--evaluate F", isinstance(self.training.evaluate, Path))
        if self.training.evaluate is not None:
            self.network.refuse_widths(" contradicts --evaluate: the file has its own")
            self._refuse_idle()
        state = self.training.resume
        if isinstance(state, Path) and self.output.save:
            refuse_input(self.output.save, [state, *(state / name for name in STATES)])

    def _refuse_idle(self) -> None:
        """Refuse --overwrite, and flags of the file to write or to start from if another flag names the file to evaluate.

        Without such a flag, the rest of the line is the command that writes it: `-sr --evaluate` evaluates the file of `-sr`.
        """
        why, idle = "--evaluate writes nothing", ["--overwrite"] if self.output.overwrite else []
        if not idle and (isinstance(self.training.evaluate, Path) or self.network.weights):
            named = "--weights" if self.network.weights else "--evaluate F"
            why, idle = f"{named} names the file to evaluate", [*self.changed(), *self.output.changed()]
        if idle:
            raise UserError(f"{why}, so {idle[0]} has no effect", f"leave {idle[0]} out")

    def words_without(self, word: str) -> tuple[str, ...]:
        """Return the command line after `python -m`, without a flag."""
        return without(self.words[2:], word)


OF_THEIR_OWN = ("digits", "scenes", "coco", "yolo")
"""Data sets with their own default recipes."""
Families = Mapping[str, Callable[[str, bool], Any]]
"""The function that chooses each family's default recipe, given the data set's name and whether a file is refined, like
recipe.for_float."""


def recipe_help(families: Families) -> dict[str, dict[str, str]]:
    """Return the help of --epochs, --lr, --wd and --train_batch_size, for `part(Training, ...)`."""
    return {
        "epochs": {"help": f"default: {in_words('epochs', families)}"},
        "lr": {"help": f"highest learning rate (default: {in_words('lr', families)})"},
        "wd": {"help": f"weight decay (default: {in_words('weight_decay', families)})"},
        "batch_size": {"help": f"default: {in_words('batch_size', families)}"},
    }


def in_words(what: str, families: Families) -> str:
    """Word a default for --help: `60 (digits 10; scenes 16), refining 20 (digits 6; scenes 8)`, or one per family.

    Args:
        what: a field of Recipe.
    """

    def said(choose: Callable[[str, bool], Any], refine: bool) -> str:
        others, *own = (f"{getattr(choose(name, refine), what):g}" for name in ("default", *OF_THEIR_OWN))
        differing: dict[str, list[str]] = {}
        for name, value in zip(OF_THEIR_OWN, own, strict=True):
            if value != others:
                differing.setdefault(value, []).append(name)
        told = [f"{', '.join(names)} {value}" for value, names in differing.items()]
        return f"{others} ({'; '.join(told)})" if told else others

    words = {}
    for family, choose in families.items():
        fresh, refining = said(choose, False), said(choose, True)
        words[family] = fresh if fresh == refining else f"{fresh}, refining {refining}"
    if len(set(words.values())) == 1:
        return words.popitem()[1]
    return "; ".join(f"{family} {text}" for family, text in words.items())
