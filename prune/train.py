"""python -m prune.train: float training, plain or sparse, refining after pruning, and the from-scratch control."""

from __future__ import annotations

import argparse
import shlex
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from engine.cli import argtypes, command, flags
from engine.errors import UserError
from engine.training import recipe

EXAMPLES = (
    "prune.train",
    "prune.train -sr --s 0.0001",
    "prune.train --arch nin_gc -sr --s 0.001",
    "prune.train --refine models_save/nin_prune.pth",
    "prune.train --from_scratch models_save/nin_prune.pth",
    "prune.train --evaluate models_save/nin.pth",
)


def parser() -> flags.Parser:
    p = flags.Parser("prune.train", (__doc__ or "").partition(": ")[2], EXAMPLES)
    stage = p.add_argument_group("stage")
    stage.add_argument("-sr", action="store_true", help="sparse training: penalise the BN scales")
    stage.add_argument("--s", type=flags.number(float, 0, open_low=True), metavar="X",
                       help="strength of -sr (default: 0.0001, for nin_gc 0.001)")  # fmt: skip
    stage.add_argument(
        "--refine",
        nargs="?",
        const=True,
        type=argtypes.path,
        metavar="F",
        help="train a pruned file on (default: the pruned file of --arch)",
    )
    stage.add_argument(
        "--from_scratch",
        nargs="?",
        const=True,
        type=argtypes.path,
        metavar="F",
        help="a pruned file's widths with fresh weights: the control for --refine",
    )
    flags.add_network(p)
    flags.add_data(p)
    flags.add_training(p, float=recipe.for_float)
    flags.add_machine(p)
    flags.add_output(p)
    return p


def body(args: argparse.Namespace) -> dict[str, Any]:
    _check(args)
    import models
    from engine.cli.naming import SAVED, find, makes
    from engine.training.experiment import Experiment
    from prune.load import load
    from prune.sparsity import penalty
    from prune.trial import examine

    prefix = (args.arch or args.default_arch).rpartition(":")[2]
    given = args.refine if args.refine is not None else args.from_scratch
    source = checkpoint = model = None
    if given is not None:
        pruning = makes("prune.normal_regular --percent 0.5", args.arch)
        maker = "prune.gc --percent 0.4" if prefix == "nin_gc" else pruning
        source = find(given, SAVED / f"{prefix}_prune.pth", maker)
        model, checkpoint = load(source, args)
        prefix = checkpoint["arch"].rpartition(":")[2]
    suffix = "_refine" if args.refine is not None else "_scratch" if source else "_preprune" if args.sr else ""
    default = SAVED / f"{prefix}{suffix}.pth"
    if args.evaluate is not None:
        maker = shlex.join(flags.without(args.command[2:], "--evaluate"))
        return _evaluate(args, find(args.evaluate, args.save or default, maker))

    if checkpoint is None:
        models.size(args.arch or args.default_arch, args.cfg)  # one that does not fit is found before pictures are read
    task = Experiment(args, default, source)
    data = task.data(checkpoint)
    if model is None or checkpoint is None or args.from_scratch is not None:
        arch = checkpoint["arch"] if checkpoint else args.arch or args.default_arch
        more = checkpoint["arch_args"] if checkpoint else {"classes": task.classes(data)}
        cfg = checkpoint["cfg"] if checkpoint else args.cfg
        model = models.build(arch, cfg, **more)
    else:
        arch, more = checkpoint["arch"], checkpoint["arch_args"]
    examine(model, arch, more, data.info.image_size, sparse=args.sr)
    s = (args.s or (1e-3 if arch == "nin_gc" else 1e-4)) if args.sr else None
    stage: dict[str, Any] = {"stage": "refine" if args.refine is not None else "train"}
    if s:
        stage["s"] = s
    if args.from_scratch is not None:
        stage["from_scratch"] = True
    chosen = recipe.SEED if args.recipe == "seed" else recipe.for_float(data.info.name, refine=args.refine is not None)
    identity = {**stage, "arch": arch, "cfg": list(model.cfg), "arch_args": more}
    hooks: dict[str, Any] = {"penalty": penalty(s)} if s else {}
    rows, used = task.train(model, data, chosen, stage=identity, **hooks)
    judged = task.judge(model, data)
    before = checkpoint["transforms"] if checkpoint and args.refine is not None else []
    if checkpoint and args.from_scratch is not None:  # what it is the control of
        stage["pruned"] = [t for t in checkpoint["transforms"] if t["stage"] == "prune"]
    more = {**more, **model.arch_args}
    path = task.write(model, arch, more, data, task.metrics(judged, data),
                      [*before, {**stage, "epochs": used.epochs}])  # fmt: skip
    text = f"{data.judged} accuracy {judged.accuracy:.2f} % on {data.info.label} ({len(data.test):,} pictures)"
    return {"text": text, "path": path, "accuracy": judged.accuracy, "epochs": rows}


def _check(args: argparse.Namespace) -> None:
    if args.refine is not None and args.from_scratch is not None:
        raise UserError("--refine contradicts --from_scratch", "give one of them")
    if args.s is not None and not args.sr:
        raise UserError("--s without -sr has no effect", "add -sr")
    if args.cfg and (args.refine is not None or args.from_scratch is not None):
        raise UserError("--cfg contradicts --refine and --from_scratch: the file has its own", "leave --cfg out")


def _evaluate(args: argparse.Namespace, path: Path) -> dict[str, Any]:
    from engine.training.judging import judge_file
    from prune.load import load

    model, checkpoint = load(path, args)
    return judge_file(args, path, model, checkpoint)


def main(argv: Sequence[str] | None = None) -> int:
    return command.run(parser(), body, argv)


if __name__ == "__main__":
    sys.exit(main())
