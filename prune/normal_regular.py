"""python -m prune.normal_regular: drop the channels with the smallest BN scales, evenly or to multiples of N."""

from __future__ import annotations

import sys
from collections.abc import Sequence

from engine import run
from engine.flags import Parser
from prune import stage

EXAMPLES = (
    "prune.normal_regular --percent 0.5",
    "prune.normal_regular --percent 0.5 --normal_regular 8",
    "prune.normal_regular --percent 0.5 --model models_save/nin_preprune.pth --save models_save/nin_prune.pth",
)


def parser() -> Parser:
    return stage.parser("prune.normal_regular", __doc__ or "", EXAMPLES, arch="nin", percent=0.5)


def main(argv: Sequence[str] | None = None) -> int:
    return run.command(parser(), stage.body, argv)


if __name__ == "__main__":
    sys.exit(main())
