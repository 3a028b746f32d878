"""python -m prune.gc: prune a network of grouped convolutions, which stay grouped and keep their weights."""

from __future__ import annotations

import sys
from collections.abc import Sequence
from functools import partial

from engine.cli import command
from engine.cli.flags import Parser
from prune import apply

EXAMPLES = (
    "prune.gc --percent 0.4",
    "prune.gc --percent 0.4 --normal_regular 8 --model models_save/nin_gc_preprune.pth",
)


def parser() -> Parser:
    return apply.parser("prune.gc", __doc__ or "", EXAMPLES, arch="nin_gc", percent=0.4)


def main(argv: Sequence[str] | None = None) -> int:
    return command.run(parser(), partial(apply.body, grouped=True), argv)


if __name__ == "__main__":
    sys.exit(main())
