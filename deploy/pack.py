"""python -m deploy.pack: a checkpoint as a file of its true size that runs without PyTorch's modules and without your code."""

from __future__ import annotations

import sys
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from engine.cli import argtypes, command
from engine.cli.flags import Parser, flag, part
from engine.cli.naming import input_file, saved
from engine.cli.options import Command, Normalisation, Output
from engine.errors import UserError

if TYPE_CHECKING:
    from deploy.packed import Packed
    from models.files import Opened

EXAMPLES = (
    "deploy.pack --model models_save/nin_wbab.pth",
    "deploy.pack --model models_save/nin_w8a8.pth --save small.safetensors --ends float",
    "deploy.pack --inspect models_save/nin_wbab.safetensors",
)


@dataclass(frozen=True, kw_only=True)
class Options(Command):
    """Which file, and how its ends are stored."""

    model: Path | None = flag(
        "--model", type=argtypes.path, metavar="F",
        help="a file of any stage, merged or not (default: models_save/nin_wbab_merged.pth)",
    )  # fmt: skip
    ends: str = flag(
        "--ends", choices=["int8", "float"], default="int8",
        help="first and last layer of a network whose other layers are integer: 8 bit, or as they are (default: int8)",
    )  # fmt: skip
    inspect: Path | None = flag(
        "--inspect", type=argtypes.path, metavar="G", help="write nothing; list what a packed file holds"
    )
    arch: str | None = flag(
        "--arch", type=argtypes.arch, metavar="NAME", help="the network of your own code that the file holds"
    )
    pixels: Normalisation = part(Normalisation)
    output: Output = part(Output, save={"help": "the file to write (default: that of --model, .safetensors)"})

    def __post_init__(self) -> None:
        if self.inspect and (self.model or self.output.save):
            raise UserError("--inspect writes nothing", "leave --model and --save out")


def parser() -> Parser:
    return Parser("deploy.pack", __doc__, EXAMPLES, Options)


def body(options: Options) -> dict[str, Any]:
    from deploy import packed
    from deploy.listing import listing, summary
    from engine.errors import prefix_path
    from engine.system.files import check_writable
    from quant import restore

    if options.inspect:
        held = packed.open(options.inspect)
        return {"text": listing(held), **summary(held)}
    source = input_file(options.model, saved("nin", "_wbab_merged"), "bn_merge --W 2")
    path = options.output.save or source.with_suffix(packed.SUFFIX)
    if path.resolve() == source.resolve():
        raise UserError(f"{path} is both input and output", "name another --save")
    check_writable(path)
    opened = restore.open(source, options.arch)
    with prefix_path(source):
        made = pack(options, opened)
    if path.exists():
        print(f"replaced {path}", file=sys.stderr)
    size = packed.save(made, path)
    held = packed.open(path)  # what was written is what is read
    before = source.stat().st_size
    counted = made.bits // 8
    text = (
        f"{source}: {before:,} bytes -> {size:,} bytes; {counted:,} counted, {len(held.program.operations)} operations"
    )
    return {"text": text, "path": path, "bytes_before": before, **summary(held)}


def pack(options: Options, opened: Opened) -> Packed:
    """The packed form of a file's network, its batch norms merged where they are not."""
    from bn_merge.merge import merge
    from deploy.lowering.walk import lower
    from deploy.packed import Packed
    from engine.checkpoint.history import Merge
    from engine.checkpoint.provenance import Origin, provenance
    from models import cost
    from quant import restore

    known, form = opened.checkpoint, opened.network.eval()
    history = known.history
    if not restore.is_merged(known):
        form, history = merge(form), (*history, Merge())
    mean, std = _normalisation(options, opened)
    program = lower(form, mean, std, options.ends == "int8")
    origin = Origin(options.words, 0, opened.path, known.sha256)  # no seed: nothing is drawn
    data = replace(known.dataset, mean=mean, std=std)
    made = replace(known, state_dict={}, history=history, dataset=data, provenance=provenance(origin))
    return Packed(program, made, cost.total(cost.layers(form, known.dataset.image_size), "bits"))


def _normalisation(options: Options, opened: Opened) -> tuple[tuple[float, ...], tuple[float, ...]]:
    """What the network's pictures are normalised with: as the flags say, else as the file does.

    Raises:
        UserError: exit 2 where neither does.
    """
    from engine.data.catalogue import ORIGINAL

    given, known = options.pixels, opened.checkpoint.dataset
    if not known.known and not (given.mean and given.std):
        numbers = [",".join(map(str, values)) for values in ORIGINAL]
        raise UserError(
            "the file does not say what its pictures were normalised with",
            f"give --mean and --std; a file of the original's has --mean {numbers[0]} --std {numbers[1]}",
        )
    mean, std = given.mean or known.mean, given.std or known.std
    channels = opened.network.captured.picture[0]
    if {len(mean), len(std)} != {channels}:
        raise UserError(
            f"--mean and --std of {len(mean)} and {len(std)} numbers, the network reads {channels} channels",
            "give a number for each channel",
        )
    return tuple(mean), tuple(std)


def main(argv: Sequence[str] | None = None) -> int:
    return command.run(parser(), body, argv)


if __name__ == "__main__":
    sys.exit(main())
