"""model-compression COMMAND ...: run any command by its name, in any folder. Without COMMAND, list all commands."""

from __future__ import annotations

import sys
from collections.abc import Sequence
from dataclasses import dataclass
from importlib import metadata
from typing import Any

from engine.cli import argtypes, command
from engine.cli.flags import Parser, flag, part
from engine.cli.machine import Debugging
from engine.cli.options import Command
from engine.errors import UserError
from engine.system import terminal
from scripts import chain

PROGRAM = "model-compression"
COMMANDS = (
    "prune.train", "prune.normal_regular", "prune.gc",
    "quant.wqaq", "quant.wbwtab", "quant.ptq",
    "bn_merge", "bn_merge.compare",
    "deploy.pack", "deploy.run", "deploy.onnx", "deploy.bench", "deploy.build",
    "scripts.report", "scripts.summary", "scripts.curves", "scripts.histograms", "scripts.convert", "engine.checkpoint",
    "scripts.quickstart", "scripts.results", "scripts.combinations", "scripts.benchmark",
)  # fmt: skip
"""All commands, in the order of a usual workflow."""


def run(argv: Sequence[str] | None = None) -> int:
    """Run one command as `python -m` would and return its exit status."""
    words = list(sys.argv[1:] if argv is None else argv)
    if words and words[0] in COMMANDS:
        sys.argv[1:] = words[1:]  # sys.argv[0] stays: naming.called reads it
        return chain.module(words[0]).main()
    return command.run(parser(), body, words[:1])


@dataclass(frozen=True, kw_only=True)
class Options(Command):
    """The name of a command. The command itself reads its flags."""

    name: str | None = flag("name", nargs="?", metavar="COMMAND", help="the command to run, before its flags")
    version: bool = flag("--version", action="store_true", help="print the installed version")
    machine: Debugging = part(Debugging)


def parser() -> Parser:
    p = Parser("", None, (), Options)
    p.prog, p.usage, p.description = PROGRAM, f"{PROGRAM} COMMAND ...", listing()
    p.epilog = "examples:\n  model-compression prune.train --help\n  model-compression prune.train -sr --s 0.0001"
    return p


def listing() -> str:
    """Return one line for each command: its name and the first line of its module's docstring."""
    about = [(chain.module(name).__doc__ or "").partition("\n")[0].partition(": ")[2] for name in COMMANDS]
    return "\n".join(map(str.rstrip, terminal.columns([*map(list, zip(COMMANDS, about, strict=True))], left=2)))


def _version() -> str:
    try:
        return metadata.version(PROGRAM)
    except metadata.PackageNotFoundError:
        return "not installed"


def body(options: Options) -> dict[str, Any]:
    if options.version:
        return {"text": f"{PROGRAM} {_version()}"}
    if options.name is not None:
        hint = argtypes.nearest(options.name, COMMANDS) or "list all commands: model-compression --help"
        raise UserError(f"unknown command {options.name!r}", hint)
    return {"text": parser().format_help().rstrip()}
