"""python -m prune.normal_regular: drop the channels with the smallest BN scales, evenly or to multiples of N."""

from __future__ import annotations

import sys
from collections.abc import Sequence

from engine.cli import command
from engine.cli.flags import Parser
from prune import apply

EXAMPLES = (
    "prune.normal_regular --percent 0.5",
    "prune.normal_regular --percent 0.5 --normal_regular 8",
    "prune.normal_regular --percent 0.5 --model models_save/nin_preprune.pth --save models_save/nin_prune.pth",
)


def parser() -> Parser:
    return apply.parser("prune.normal_regular", __doc__ or "", EXAMPLES, arch="nin", percent=0.5)


def main(argv: Sequence[str] | None = None) -> int:
    return command.run(parser(), apply.body, argv)


if __name__ == "__main__":
    sys.exit(main())
