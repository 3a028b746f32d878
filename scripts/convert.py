"""python -m scripts.convert: an old file, the original's or one without checksums, as a checkpoint of today."""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence
from typing import Any

from engine.cli import argtypes, command, flags
from engine.errors import BAD_CHECKPOINT, UserError

EXAMPLES = (
    "scripts.convert original/nin.pth models_save/nin.pth",
    "scripts.convert original/nin.pth models_save/nin.pth --dataset cifar10",
    "scripts.convert old.pth models_save/mine.pth --arch my_net:residual --cfg 16,16 --classes 10",
)


def parser() -> flags.Parser:
    p = flags.Parser("scripts.convert", (__doc__ or "").partition(": ")[2], EXAMPLES)
    p.add_argument("old", type=argtypes.path, metavar="OLD", help="any file that the commands can read, or a state_dict of your own network")  # fmt: skip
    p.add_argument("new", type=argtypes.path, metavar="NEW", help="the file to write")
    flags.add_network(p)
    p.add_argument("--dataset", choices=["cifar10", "cifar100", "digits"],
                   help="what it was trained on, where the file cannot say")  # fmt: skip
    p.add_argument("--image_size", type=argtypes.number(int, 8, 1024), metavar="N",
                   help="side of those pictures (default: 32)")  # fmt: skip
    p.add_argument("--overwrite", action="store_true", help="allow OLD and NEW to be one file")
    p.add_argument("--json", action="store_true", help="print one JSON object instead of text")
    p.add_argument("--debug", action="store_true", help="show the traceback of a fault")
    return p


def body(args: argparse.Namespace) -> dict[str, Any]:
    if args.new.resolve() == args.old.resolve() and not args.overwrite:
        raise UserError(f"{args.new} is both input and output", "name another NEW, or add --overwrite")
    from engine.checkpoint import format as checkpoint
    from engine.system.files import check_writable
    from quant.restore import restore

    check_writable(args.new)
    content = checkpoint.load(args.old)
    if "format" in content:
        given = [name for name in ("cfg", "classes", "dataset", "image_size") if getattr(args, name) is not None]
        if given:
            raise UserError(f"{args.old} says its own {given[0]}", f"leave --{given[0]} out")
        content["state_dict"] = dict(restore(content, args.arch).state_dict())  # checked by building it
    else:
        content = _described(args, content)
    checkpoint.save(args.new, content)
    words = f"{content['arch']} {','.join(map(str, content['cfg']))} for {content['arch_args']['classes']} classes"
    return {"text": f"{args.old}: {words}", "path": args.new, "arch": content["arch"], "cfg": content["cfg"]}


def _described(args: argparse.Namespace, content: dict[str, Any]) -> dict[str, Any]:
    """A checkpoint for weights that come without a description."""
    import models
    from engine.checkpoint import format as checkpoint, provenance
    from engine.system import files
    from models import legacy

    try:
        accuracy = legacy.stored_accuracy(content)
    except (ValueError, TypeError, RuntimeError) as fault:
        raise UserError(f"{args.old}: {fault}", "make the file again", BAD_CHECKPOINT) from fault
    if args.arch and ":" in args.arch:
        model = models.build(args.arch, args.cfg, args.classes or 10)
        models.load_weights(model, legacy.unwrapped(content["state_dict"], set(model.state_dict())))
        arch, arch_args = args.arch, {"classes": args.classes or 10, **model.arch_args}
    else:
        content = legacy.adopt(content, args.old)
        model, arch, arch_args = models.restore(content, args.arch), content["arch"], content["arch_args"]
        for name, found in (("cfg", content["cfg"]), ("classes", arch_args["classes"])):
            if getattr(args, name) not in (None, found):
                raise UserError(f"{args.old} has {name} {found}, not {getattr(args, name)}", f"leave --{name} out")
    return checkpoint.make(
        model,
        arch,
        arch_args,
        _data_set(args, arch_args["classes"]),
        {"accuracy": accuracy, "judged_on": "unknown"},
        [{"stage": "original"}],
        provenance.Origin(args.command, 0, args.old, files.sha256(args.old)),  # nothing here is drawn by chance
    )


def _data_set(args: argparse.Namespace, classes: int) -> Any:
    from engine.data import catalogue
    from engine.data.info import DataInfo

    size = args.image_size or 32
    if args.dataset is None:
        return DataInfo("unknown", "unknown", classes, size, (0.0,) * 3, (1.0,) * 3)
    info = catalogue.describe(args.dataset, size)
    if classes < info.classes:
        raise UserError(f"{info.label} has {info.classes} classes, the network {classes}", "name another --dataset")
    return info


def main(argv: Sequence[str] | None = None) -> int:
    return command.run(parser(), body, argv)


if __name__ == "__main__":
    sys.exit(main())
