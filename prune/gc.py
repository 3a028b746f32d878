"""python -m prune.gc: prune a network with grouped convolutions, which stay grouped and keep their weights."""

from __future__ import annotations

import sys
from collections.abc import Sequence
from typing import Any

from engine.cli import command
from engine.cli.flags import Parser
from prune.options import Grouped

EXAMPLES = (
    "prune.gc --percent 0.4",
    "prune.gc --percent 0.4 --normal_regular 8 --model models_save/nin_gc_preprune.pth",
)


def parser() -> Parser:
    return Parser("prune.gc", __doc__, EXAMPLES, Grouped)


def body(options: Grouped) -> dict[str, Any]:
    from prune.apply import apply

    return apply(options, grouped=True)


def main(argv: Sequence[str] | None = None) -> int:
    return command.run(parser(), body, argv)


if __name__ == "__main__":
    sys.exit(main())
