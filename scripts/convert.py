"""python -m scripts.convert: convert an old file, the original's or one without checksums, to today's format."""

from __future__ import annotations

import shlex
import sys
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from engine.cli import argtypes, command, datasets
from engine.cli.flags import Parser, flag, part
from engine.cli.naming import called, refuse_input
from engine.cli.network import Architecture
from engine.cli.options import Command, Normalisation
from engine.errors import UserError, prefix_path
from engine.system.messages import notice

if TYPE_CHECKING:
    from engine.checkpoint.format import Checkpoint, Foreign
    from engine.data.info import DataInfo

EXAMPLES = (
    "scripts.convert original/nin.pth models_save/nin.pth",
    "scripts.convert original/nin.pth models_save/nin.pth --dataset cifar10",
    "scripts.convert old.pth models_save/mine.pth --arch my_net:residual --cfg 16,16 --classes 10",
)


@dataclass(frozen=True, kw_only=True)
class Options(Command):
    """The old and the new file, and facts that the old one lacks."""

    old: Path = flag(
        "old", type=argtypes.path, metavar="OLD",
        help="any file that the commands read, or a state_dict of your network",
    )  # fmt: skip
    new: Path = flag("new", type=argtypes.checkpoint, metavar="NEW", help="the file to write")
    dataset: str | None = flag(
        "--dataset", choices=[*datasets.BUILT_IN], help="data set of its training, if the file does not name it"
    )
    image_size: int | None = flag(
        "--image_size", type=argtypes.number(int, 8, 1024), metavar="N", help="side of those pictures (default: 32)"
    )
    pixels: Normalisation = part(Normalisation)
    overwrite: bool = flag("--overwrite", action="store_true", help="allow OLD and NEW to be one file")
    network: Architecture = part(Architecture)

    def __post_init__(self) -> None:
        if not self.overwrite:
            refuse_input(self.new, [self.old], "name another NEW, or add --overwrite")

    def described(self) -> dict[str, Any]:
        """Return the facts that flags give about the file, by flag."""
        said = {
            "cfg": self.network.cfg,
            "classes": self.network.classes,
            "dataset": self.dataset,
            "image_size": self.image_size,
            "mean": self.pixels.mean,
            "std": self.pixels.std,
        }
        return {name: value for name, value in said.items() if value is not None}


def parser() -> Parser:
    return Parser("scripts.convert", __doc__, EXAMPLES, Options)


def body(options: Options) -> dict[str, Any]:
    from engine.checkpoint.format import Foreign, load, save
    from engine.system.files import check_writable
    from quant.restore import restore

    check_writable(options.new, "name another NEW")
    found = load(options.old)
    if isinstance(found, Foreign):
        made = _described(options, found)
    else:
        if given := next(iter(options.described()), None):
            raise UserError(f"--{given}: {options.old} already records it", f"leave --{given} out")
        made = replace(found, state_dict=dict(restore(found, options.network.arch).state_dict()))  # checked by building
    save(options.new, made)
    words = f"{made.arch} {','.join(map(str, made.cfg))} for {made.classes} classes"
    return {"text": f"converted {options.old}: {words}", "path": options.new, "arch": made.arch, "cfg": made.cfg}


def _described(options: Options, found: Foreign) -> Checkpoint:
    """Return a checkpoint for weights that come without a description."""
    import models
    from engine.checkpoint.description import Description
    from engine.checkpoint.format import make
    from engine.checkpoint.history import is_originals
    from engine.checkpoint.provenance import Origin
    from models import forms, weights

    asked, old, pixels = options.network, options.old, options.pixels
    if options.dataset is None and (pixels.mean or pixels.std):
        unused = "mean" if pixels.mean else "std"
        raise UserError(f"--{unused} without --dataset has no effect", "add --dataset")
    said = Description(
        arch=asked.arch, cfg=asked.cfg, classes=asked.classes, said_by="--classes", image_size=options.image_size or 32,
        remedy=f"leave --classes out, or train the network for other classes: {called(f'prune.train --weights {shlex.quote(str(old))}')}",
    )  # fmt: skip
    read = weights.described(found, old, said)
    with prefix_path(old):
        model = models.restore(read, asked.arch)
    info = _data_set(options, is_originals(read.history), read.classes, forms.channels(model))
    origin = Origin(options.words, 0, old, found.sha256)  # no seed: nothing is drawn
    return make(model, read.arch, read.arch_args, info, read.metrics, read.history, origin)


def _data_set(options: Options, originals: bool, classes: int, channels: int) -> DataInfo:
    from engine.data import catalogue
    from engine.data.info import DataInfo
    from engine.training.choose_data import say_normalisation

    size = options.image_size or 32
    if options.dataset is None:
        notice(
            f"{options.old} does not name its data set, and neither does {options.new}: give --dataset "
            "(and --mean and --std, if its pictures were normalised differently)"
        )
        return DataInfo.unknown(classes, size, ((0.0,) * channels, (1.0,) * channels))
    info = catalogue.describe(options.dataset, size)
    if classes < info.classes:
        raise UserError(
            f"{info.label} has {info.classes} classes, but the network has {classes}", "give another --dataset"
        )
    own = (info.mean, info.std)
    given = [values for values in (options.pixels.mean, options.pixels.std) if values]
    if any(len(values) != channels for values in given) or (channels == 1 and len(given) < 2):
        reads, what = ("one channel", "one number") if channels == 1 else ("three channels", "three numbers")
        raise UserError(
            f"the network reads {reads}: --mean and --std must be {what} each",
            "give the values that its pictures were normalised with",
        )
    if options.dataset == "cifar10" and originals:
        own = catalogue.ORIGINAL
    info = info.normalised(options.pixels.mean or own[0], options.pixels.std or own[1])
    say_normalisation(options.pixels, info, options.old)
    return info


def main(argv: Sequence[str] | None = None) -> int:
    return command.run(parser(), body, argv)


if __name__ == "__main__":
    sys.exit(main())
