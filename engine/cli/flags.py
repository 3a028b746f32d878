"""Every flag of every command, declared once; needs no torch, so that --help answers at once.

Spellings are the original's (`--Wbits`, `-sr`, `--train_batch_size`); what a value may be is in argtypes.py,
what a flag does lives elsewhere.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, NoReturn

from engine.cli.argtypes import ARCHS, arch, nearest, number, path, state, widths
from engine.errors import UserError


class Parser(argparse.ArgumentParser):
    """An argparse parser that never guesses abbreviations and fails with one error and one hint line."""

    def __init__(self, prog: str, description: str, examples: Sequence[str]) -> None:
        super().__init__(
            prog=f"python -m {prog}",
            description=description,
            epilog="examples:\n" + "\n".join(f"  python -m {line}" for line in examples),
            formatter_class=argparse.RawDescriptionHelpFormatter,
            allow_abbrev=False,
        )

    def parse_args(self, args=None, namespace=None):
        known, unknown = self.parse_known_args(args, namespace)
        if unknown:
            options = [o for action in self._actions for o in action.option_strings]
            raise UserError(
                f"unknown argument {unknown[0]}",
                nearest(unknown[0].split("=")[0], options) or f"see {self.prog} --help",
            )
        return known

    def error(self, message: str) -> NoReturn:
        what, _, hint = message.partition("\n")
        if "expected one argument" in what:
            hint = "give it a value; one that begins with a dash is written like --save=./-x.pth"
        raise UserError(what, hint or f"see {self.prog} --help")

    def print_help(self, file: Any = None) -> None:
        """argparse itself would swallow a closed pipe."""
        print(self.format_help(), end="", file=file)

    def exit(self, status: int = 0, message: str | None = None) -> NoReturn:
        """After --help: what is still buffered finds a closed pipe here, not at the interpreter's end."""
        sys.stdout.flush()
        super().exit(status, message)

    def _get_option_tuples(self, option_string: str) -> list:
        """No abbreviations of `-sr` either: argparse's allow_abbrev is about `--` alone."""
        return []

    def _check_value(self, action: argparse.Action, value: Any) -> None:
        """argparse's own test of `choices`, with a hint: the nearest choice, else what the flag's help says."""
        if action.choices is None or value in action.choices:
            return
        known = [str(choice) for choice in action.choices]
        hint = nearest(str(value), known) or (action.help or "").replace("%%", "%")
        raise argparse.ArgumentError(action, f"{value!r} is not one of {', '.join(known)}\n{hint}")


def add_network(parser: Parser, default: str = "nin") -> None:
    """Which network: --arch, --type, --cfg, --classes."""
    group = parser.add_argument_group("network")
    group.add_argument(
        "--arch",
        type=arch,
        metavar="NAME",
        help=f"{', '.join(ARCHS)}, or package.module:function for a network of your own "
        f"(default: the input file's, else {default})",
    )
    group.add_argument(
        "--type",
        type=number(int, 0, 2, hint="0: nin, 1: nin_gc, 2: separable"),
        metavar="N",
        help="the original's short names: 0 = nin, 1 = nin_gc, 2 = separable",
    )
    group.add_argument(
        "--cfg", type=widths, metavar="W,W,...", help="channels of each layer (default: the network's own)"
    )
    group.add_argument(
        "--classes", type=number(int, 2, 100_000), metavar="N", help="number of classes (default: the data set's)"
    )
    parser.set_defaults(default_arch=default)


def add_data(parser: Parser, auto: bool = True) -> None:
    """Which pictures: --dataset, --data, --image_size, --flip, --val and how they are read.

    Args:
        auto: whether a data set may be chosen by what is there; else it has to be named.
    """
    group = parser.add_argument_group("data")
    group.add_argument(
        "--dataset",
        choices=[*(["auto"] if auto else []), "cifar10", "cifar100", "digits", "imagefolder"],
        help="default auto: CIFAR-10 if it is on disk or can be downloaded, else the embedded digits"
        if auto
        else "results belong to one: name it",
    )
    group.add_argument(
        "--data", type=path, default=Path("data"), metavar="DIR", help="where pictures are, or go (default: data)"
    )
    group.add_argument(
        "--image_size", type=number(int, 8, 1024), metavar="N", help="side of the pictures (default: the data set's)"
    )
    group.add_argument(
        "--flip",
        action=argparse.BooleanOptionalAction,
        help="mirror half of the pictures in training (default: as the input file's were, else yes, digits no)",
    )
    group.add_argument(
        "--val",
        type=number(int, 0, 10**9),
        default=0,
        metavar="N",
        help="hold out N training pictures and judge on them, not on the test set",
    )
    group.add_argument("--eval_batch_size", type=number(int, 1, 1_000_000), default=500, metavar="N")
    group.add_argument(
        "--num_workers",
        type=number(int, 0, 1024),
        default=2,
        metavar="N",
        help="loader processes, for sets too large for memory",
    )


def add_training(parser: Parser, **families: Callable[[str, bool], Any]) -> None:
    """How to train: epochs, rates, recipe, resume, evaluate, precision.

    Args:
        families: what chooses the default recipe of each family, see recipe.in_words.
    """
    group = parser.add_argument_group("training")
    group.add_argument(
        "--epochs", type=number(int, 1, 1_000_000), metavar="N", help=f"default: {in_words('epochs', **families)}"
    )
    group.add_argument(
        "--lr", type=number(float, 0, open_low=True), metavar="X",
        help=f"highest learning rate (default: {in_words('lr', **families)})",
    )  # fmt: skip
    group.add_argument(
        "--wd", type=number(float, 0), metavar="X",
        help=f"weight decay (default: {in_words('weight_decay', **families)})",
    )  # fmt: skip
    group.add_argument(
        "--train_batch_size", type=number(int, 2, 1_000_000), metavar="N",
        help=f"default: {in_words('batch_size', **families)}",
    )  # fmt: skip
    group.add_argument(
        "--recipe",
        choices=["default", "seed"],
        default="default",
        help="seed: the original's Adam, lr 0.01, batch 50, 300 epochs in steps (INT8: 30, in steps of its own)",
    )
    group.add_argument(
        "--resume",
        nargs="?",
        const="auto",
        type=state,
        metavar="auto|F",
        help="go on from the run folder's state (or from F), as if never stopped",
    )
    group.add_argument(
        "--evaluate",
        nargs="?",
        const=True,
        type=path,
        metavar="F",
        help="train nothing, judge F (default: the file this command writes)",
    )
    group.add_argument(
        "--precision",
        choices=["auto", "fp32", "bf16"],
        default="auto",
        help="of float training (default: bf16 where the hardware has it)",
    )
    group.add_argument("--run_dir", type=path, metavar="DIR", help="run folder (default: runs/NAME)")


def add_machine(parser: Parser) -> None:
    """Where to run and what to print."""
    group = parser.add_argument_group("machine")
    group.add_argument("--device", choices=["auto", "cpu", "cuda"], default="auto")
    group.add_argument("--cpu", action="store_true", help="same as --device cpu")
    group.add_argument(
        "--threads", type=number(int, 1, 1024), metavar="N", help="CPU threads (default: OMP_NUM_THREADS, else all)"
    )
    group.add_argument("--seed", type=number(int, 0, 2**63 - 1), default=1, metavar="N")
    group.add_argument("--json", action="store_true", help="print one JSON object instead of text")
    group.add_argument("--quiet", action="store_true", help="no progress on stderr")
    group.add_argument("--debug", action="store_true", help="show the traceback of a fault")


def add_output(parser: Parser) -> None:
    """Where to write."""
    group = parser.add_argument_group("output")
    group.add_argument("--save", type=path, metavar="F", help="the file to write")
    group.add_argument("--overwrite", action="store_true", help="allow output and input to be one file")


def without(words: Sequence[str], flag: str) -> tuple[str, ...]:
    """A command line without a flag whose value, if it has one, is the next word or behind a `=`."""
    kept: list[str] = []
    value = False  # whether this word may be the flag's value
    for word in words:
        if word != flag and not word.startswith(f"{flag}=") and not (value and not word.startswith("-")):
            kept.append(word)
        value = word == flag
    return tuple(kept)


def in_words(what: str, **families: Callable[[str, bool], Any]) -> str:
    """A default for --help: `60 (digits 10), refining 20 (digits 6)`, for each family apart where they differ.

    Args:
        what: a field of Recipe.
        families: functions of the data set's name and of whether it is refined, like `for_float`.
    """

    def said(choose: Callable[[str, bool], Any], refine: bool) -> str:
        digits, others = (f"{getattr(choose(name, refine), what):g}" for name in ("digits", "default"))
        return others if digits == others else f"{others} (digits {digits})"

    words = {}
    for family, choose in families.items():
        fresh, refining = said(choose, False), said(choose, True)
        words[family] = fresh if fresh == refining else f"{fresh}, refining {refining}"
    if len(set(words.values())) == 1:
        return words.popitem()[1]
    return "; ".join(f"{family} {text}" for family, text in words.items())
