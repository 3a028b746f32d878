"""python -m bn_merge.compare: compare a network before and after merging, over the whole test set."""

from __future__ import annotations

import sys
from collections.abc import Sequence
from typing import Any

from bn_merge.options import Comparing
from engine.cli import command
from engine.cli.flags import Parser

EXAMPLES = (
    "bn_merge.compare --W 2",
    "bn_merge.compare models_save/nin_w8a8_merged.pth",
    "bn_merge.compare models_save/nin_w8a8.pth models_save/nin_w8a8_merged.pth --float64",
)


def parser() -> Parser:
    return Parser("bn_merge.compare", __doc__, EXAMPLES, Comparing)


def body(options: Comparing) -> dict[str, Any]:
    from bn_merge.comparison import compare

    return compare(options)


def main(argv: Sequence[str] | None = None) -> int:
    return command.run(parser(), body, argv)


if __name__ == "__main__":
    sys.exit(main())
