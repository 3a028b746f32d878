"""python -m scripts.benchmark: time training and evaluation against textbook code, in turns within one run."""

from __future__ import annotations

import sys
from collections.abc import Sequence
from typing import Any

from engine.cli import command
from engine.cli.flags import Parser
from scripts.speed.options import Options

EXAMPLES = (
    "scripts.benchmark",
    "scripts.benchmark --networks nin --variants float 'DoReFa W8A8' --seconds 60 --threads 1",
    "scripts.benchmark --growth",
)


def parser() -> Parser:
    return Parser("scripts.benchmark", __doc__, EXAMPLES, Options)


def body(options: Options) -> dict[str, Any]:
    from scripts.speed.measure import measure

    return measure(options)


def main(argv: Sequence[str] | None = None) -> int:
    return command.run(parser(), body, argv)


if __name__ == "__main__":
    sys.exit(main())
