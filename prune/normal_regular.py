"""python -m prune.normal_regular: drop the channels with the smallest BN scales, evenly or to multiples of N."""

from __future__ import annotations

import sys
from collections.abc import Sequence
from typing import Any

from engine.cli import command
from engine.cli.flags import Parser
from prune.options import Options

EXAMPLES = (
    "prune.normal_regular --percent 0.5",
    "prune.normal_regular --percent 0.5 --normal_regular 8",
    "prune.normal_regular --percent 0.5 --model models_save/nin_preprune.pth --save models_save/nin_prune.pth",
)


def parser() -> Parser:
    return Parser("prune.normal_regular", __doc__, EXAMPLES, Options)


def body(options: Options) -> dict[str, Any]:
    from prune.apply import apply

    return apply(options)


def main(argv: Sequence[str] | None = None) -> int:
    return command.run(parser(), body, argv)


if __name__ == "__main__":
    sys.exit(main())
