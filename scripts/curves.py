"""python -m scripts.curves: draw what quantizers make of numbers, and their pseudo-gradients."""

from __future__ import annotations

import sys
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from engine.cli import argtypes, command
from engine.cli.flags import Parser, flag
from engine.cli.options import Command
from engine.errors import UserError
from models.layers.quantizers import kinds

EXAMPLES = ("scripts.curves", "scripts.curves lsq --bits 2", "scripts.curves dorefa affine --folder pictures")
OTHER_FOLDER = "name a writable folder with --folder"


@dataclass(frozen=True, kw_only=True)
class Options(Command):
    """The quantizers to draw, and their bits."""

    names: list[str] = flag("names", nargs="*", metavar="NAME", help="quantizers (default: all)")
    bits: int = flag(
        "--bits", type=argtypes.number(int, 1, 8), default=3, metavar="K",
        help="width of the codes; a quantizer without it has its nearest one (default: 3)",
    )  # fmt: skip
    folder: Path = flag(
        "--folder", type=argtypes.path, default=Path("runs/curves"), metavar="DIR",
        help="where NAME.png goes (default: runs/curves)",
    )  # fmt: skip

    def __post_init__(self) -> None:
        known = kinds.all_traits()
        for name in self.names:
            if name not in known:
                hint = argtypes.nearest(name, list(known)) or f"one of {', '.join(known)}"
                raise UserError(f"unknown quantizer {name!r}", hint)
            if 32 in known[name].bits:
                raise UserError(f"{name} is the identity: there is nothing to draw", "name another quantizer")


def parser() -> Parser:
    return Parser("scripts.curves", __doc__, EXAMPLES, Options)


def body(options: Options) -> dict[str, Any]:
    from engine.system import figures
    from engine.system.files import check_writable, write_bytes
    from scripts.drawing import curves, numbers

    figures.check()
    paths = {name: options.folder / f"{name}.png" for name in options.names or numbers.names()}
    for path in paths.values():
        check_writable(path, OTHER_FOLDER)
    for name, path in paths.items():
        write_bytes(path, curves.picture(name, options.bits), remedy=OTHER_FOLDER)
    return {"text": f"drawn: {', '.join(map(str, paths.values()))}", "path": options.folder}


def main(argv: Sequence[str] | None = None) -> int:
    return command.run(parser(), body, argv)


if __name__ == "__main__":
    sys.exit(main())
