"""python -m deploy.build: compile the native engine now, instead of on first use."""

from __future__ import annotations

import sys
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from engine.cli import command
from engine.cli.flags import Parser, part
from engine.cli.machine import Printing
from engine.cli.options import Command
from engine.errors import UserError
from engine.system.compiled import Unavailable

EXAMPLES = ("deploy.build",)


@dataclass(frozen=True, kw_only=True)
class Options(Command):
    """The options of deploy.build, which has no flags of its own."""

    machine: Any = part(Printing)


def parser() -> Parser:
    return Parser("deploy.build", __doc__, EXAMPLES, Options)


def body(options: Options) -> dict[str, Any]:
    from deploy.native import compiler

    try:
        engine = compiler.engine()
    except Unavailable as fault:
        raise UserError(
            f"there is no native engine here: {fault}", "packed files run without it, by PyTorch"
        ) from fault
    others = ", ".join(name for name in compiler.instruction_sets() if "emulated" not in name)
    text = f"the native engine runs here, by {engine.kernels}\ninstruction sets here: {others}"
    return {"text": text, "path": engine.path, "kernels": engine.kernels}


def main(argv: Sequence[str] | None = None) -> int:
    return command.run(parser(), body, argv)


if __name__ == "__main__":
    sys.exit(main())
