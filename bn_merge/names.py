"""What both commands take where no file is named: the --W flag, and the names that go by it."""

from __future__ import annotations

import argparse
from pathlib import Path

from engine.cli import flags
from engine.errors import BAD_CHECKPOINT, UserError

LETTER = {2: "b", 3: "t", 32: "32"}


"""How file names write the weights of --W."""


def add_weights(parser: flags.Parser) -> None:
    """The flag --W."""
    parser.add_argument(
        "--W",
        type=flags.number(int, 0),
        choices=sorted(LETTER),
        help="2 binary, 3 ternary, 32 float weights: checked against the file",
    )


def stem(args: argparse.Namespace) -> str:
    """The name of the unmerged file, without folder and ending; --W 2 is the default, as in quant.wbwtab."""
    prefix = (args.arch or args.default_arch).rpartition(":")[2]
    return f"{prefix}_w{LETTER[args.W or 2]}ab"


def check_weights(args: argparse.Namespace, path: Path, letter: str) -> None:
    """Refuse, with exit 3, a file whose weights (`letter` as QuantSpec writes them) are not of --W."""
    if args.W and letter != LETTER[args.W]:
        raise UserError(
            f"--W {args.W}, but the weights of {path} are of kind {letter}", "leave --W out", BAD_CHECKPOINT
        )
