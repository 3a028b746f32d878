"""python -m deploy.pack: pack a checkpoint into a file of its true size that needs neither PyTorch modules nor your code."""

from __future__ import annotations

import shlex
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from deploy.options import Source
from engine.cli import argtypes, command
from engine.cli.flags import Parser, flag, part
from engine.cli.naming import called
from engine.cli.options import Command, Output
from engine.errors import UserError

EXAMPLES = (
    "deploy.pack --model models_save/nin_wbab.pth",
    "deploy.pack --model models_save/nin_w8a8.pth --save small.safetensors --ends float",
    "deploy.pack --inspect models_save/nin_wbab.safetensors",
)


@dataclass(frozen=True, kw_only=True)
class Options(Command):
    """The options of deploy.pack."""

    source: Source = part(Source)
    inspect: Path | None = flag(
        "--inspect", type=argtypes.path, metavar="G", help="list a packed file's contents; write nothing"
    )
    output: Output = part(Output, save={"help": "the file to write (default: --model with .safetensors)"})

    def __post_init__(self) -> None:
        if self.inspect and (self.source.given or self.output.save):
            raise UserError(
                "--inspect does not go with --model or --save: it writes nothing", "leave --model and --save out"
            )


def parser() -> Parser:
    return Parser("deploy.pack", __doc__, EXAMPLES, Options)


def body(options: Options) -> dict[str, Any]:
    from deploy import file, packed
    from deploy.listing import in_tables, listing, summary

    if options.inspect:
        held = packed.open(options.inspect)
        return {"text": listing(held), **summary(held)}
    source = options.source.model
    if file.looks_packed(source) and options.output.save is None:
        name = shlex.quote(str(source))
        hint = f"to list it: {called(f'deploy.pack --inspect {name}')}; to run it: {called(f'deploy.run --model {name} --evaluate')}"
        raise UserError(f"{source} is already packed", hint)
    path = options.source.target(options.output, file.SUFFIX)
    made = options.source.packed(options.words)
    if path.exists():
        print(f"replaced {path}", file=sys.stderr)
    size = packed.save(made, path)
    held = packed.open(path)  # checks that the file can be read back
    before, counted = source.stat().st_size, made.bits // 8
    text = f"{source}: {before:,} bytes -> {size:,} bytes; {in_tables(counted)}"
    return {"text": text, "path": path, "bytes_before": before, **summary(held)}


def main(argv: Sequence[str] | None = None) -> int:
    return command.run(parser(), body, argv)


if __name__ == "__main__":
    sys.exit(main())
