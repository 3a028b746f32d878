"""Every flag of every command, declared once; needs no torch, so that --help answers at once.

Spellings are the original's (`--Wbits`, `-sr`, `--train_batch_size`); what a flag does lives elsewhere.
"""

from __future__ import annotations

import argparse
import difflib
import math
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, NoReturn

from engine.errors import UserError

BITS = (2, 3, 4, 5, 6, 7, 8, 32)


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
            close = difflib.get_close_matches(unknown[0].split("=")[0], options, n=1)
            raise UserError(
                f"unknown argument {unknown[0]}",
                f"did you mean {close[0]}?" if close else f"see {self.prog} --help",
            )
        return known

    def error(self, message: str) -> NoReturn:
        what, _, hint = message.partition(" | ")
        raise UserError(what, hint or f"see {self.prog} --help")


def number(
    kind: type, low: float, high: float = math.inf, open_low: bool = False, hint: str = ""
) -> Callable[[str], Any]:
    """An argparse type: a finite `kind` in [low, high], or (low, high] with `open_low`."""

    def parse(text: str) -> Any:
        try:
            value = kind(text) if "_" not in text else None  # int("1_6") is 16 in Python
        except ValueError:
            value = None
        # nan and inf fall out here, too; a whole number may be too large for a float
        if value is None or not low <= value <= high or value == math.inf or (open_low and value == low):
            name = "a whole number" if kind is int else "a number"
            span = f"{'above' if open_low else 'of at least'} {low:g}"
            span += f" and at most {high:g}" if high < math.inf else ""
            raise argparse.ArgumentTypeError(f"{text!r} is not {name} {span}" + (f" | {hint}" if hint else ""))
        return value

    return parse


def percent(text: str) -> float:
    """An argparse type: the share of channels to drop, in [0, 1)."""
    try:
        value = float(text) if "_" not in text else math.nan
    except ValueError:
        value = math.nan
    if not 0 <= value < 1:
        guess = f"did you mean {value / 100:g}?" if 1 <= value < 100 else "e.g. --percent 0.5"
        raise argparse.ArgumentTypeError(f"{text!r} is not in [0, 1) | {guess}")
    return value


def widths(text: str) -> list[int]:
    """An argparse type: the channels of each layer, `192,160,96`; spaces, brackets and a pool's 'A' may stand."""
    items = [t.strip(" '\"") for t in text.strip(" []()").split(",")]
    items = [t for t in items if t and t != "A"]
    if not items or not all(t.isdecimal() and 0 < int(t) <= 65536 for t in items):
        raise argparse.ArgumentTypeError(
            f"{text!r} is not a list of channel counts | e.g. --cfg 192,160,96,192,192,192,192,192"
        )
    return [int(t) for t in items]


def bits(text: str) -> int | str:
    """An argparse type: a bit width of the list, `t` for ternary or `b` for binary."""
    if text in ("t", "b"):
        return text
    if not text.isdecimal() or int(text) not in BITS:
        raise argparse.ArgumentTypeError(f"{text!r} is not a bit width | one of {', '.join(map(str, BITS))}, t, b")
    return int(text)


def add_network(parser: Parser, arch: str = "nin") -> None:
    """Which network: --arch, --type, --cfg, --classes."""
    group = parser.add_argument_group("network")
    group.add_argument(
        "--arch",
        metavar="NAME",
        help="nin, nin_3x3, nin_gc, separable, separable_wide, slimming, or package.module:function for a network of your own "
        f"(default: the input file's, else {arch})",
    )
    group.add_argument(
        "--type",
        type=number(int, 0, 2, hint="0: nin, 1: nin_gc, 2: separable"),
        metavar="N",
        help="the original's short names: 0 = nin, 1 = nin_gc, 2 = separable",
    )
    group.add_argument("--cfg", type=widths, metavar="W,W,...", help="channels of each layer")
    group.add_argument(
        "--classes", type=number(int, 2, 100_000), metavar="N", help="number of classes (default: the data set's)"
    )
    parser.set_defaults(default_arch=arch)


def add_data(parser: Parser) -> None:
    """Which pictures: --dataset, --data, --image_size, --val and how they are read."""
    group = parser.add_argument_group("data")
    group.add_argument(
        "--dataset",
        choices=["auto", "cifar10", "cifar100", "digits", "imagefolder"],
        help="default auto: CIFAR-10 if it is on disk or can be downloaded, else the embedded digits",
    )
    group.add_argument(
        "--data", type=Path, default=Path("data"), metavar="DIR", help="where pictures are, or go (default: data)"
    )
    group.add_argument(
        "--image_size", type=number(int, 8, 1024), metavar="N", help="side of the pictures (default: the data set's)"
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


def add_training(parser: Parser) -> None:
    """How to train: epochs, rates, recipe, resume, evaluate, precision."""
    group = parser.add_argument_group("training")
    group.add_argument("--epochs", type=number(int, 1, 1_000_000), metavar="N", help="default: by data set")
    group.add_argument("--lr", type=number(float, 0, open_low=True), metavar="X", help="default: by recipe")
    group.add_argument("--wd", type=number(float, 0), metavar="X", help="weight decay (default: by recipe)")
    group.add_argument("--train_batch_size", type=number(int, 2, 1_000_000), metavar="N", help="default: by data set")
    group.add_argument(
        "--recipe",
        choices=["default", "seed"],
        default="default",
        help="seed: the original's Adam, lr 0.01, steps at 80/130/180/230/280",
    )
    group.add_argument(
        "--resume",
        nargs="?",
        const="auto",
        metavar="auto|F",
        help="go on from the run folder's state (or from F), as if never stopped",
    )
    group.add_argument(
        "--evaluate",
        nargs="?",
        const="",
        metavar="F",
        help="train nothing, judge F (default: the file this command writes)",
    )
    group.add_argument(
        "--precision",
        choices=["auto", "fp32", "bf16"],
        default="auto",
        help="of float training (default: bf16 where the hardware has it)",
    )
    group.add_argument("--run_dir", type=Path, metavar="DIR", help="run folder (default: runs/NAME)")


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
    group.add_argument("--save", type=Path, metavar="F", help="the file to write")
    group.add_argument("--overwrite", action="store_true", help="allow output and input to be one file")
