"""What the training commands of this folder do: a float network, prepared, trained, judged, written."""

from __future__ import annotations

import argparse
import shlex
import sys
from collections.abc import Callable
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

from engine.cli import argtypes, flags
from engine.errors import UserError
from quant.recipes import for_spec
from quant.spec import QuantSpec

SAYS: dict[str, Callable[[QuantSpec], Any]] = {
    **dict.fromkeys(("--Wbits", "--W"), lambda spec: spec.weight.letter),
    **dict.fromkeys(("--Abits", "--A"), lambda spec: spec.activation.letter),
    **dict.fromkeys(("--per_channel", "--no-per_channel"), lambda spec: spec.weight.per_channel),
    **dict.fromkeys(("--scale", "--no-scale"), lambda spec: spec.weight.scale),
    "--quantizer": lambda spec: spec.weight.kind, "--q_type": lambda spec: spec.weight.symmetric,
    "--bn_fold": lambda spec: spec.bn_fold, "--order": lambda spec: spec.order, "--gap": lambda spec: spec.weight.gap,
    "--ste": lambda spec: spec.activation.ste, "--wste": lambda spec: spec.weight.ste,
    "--bn_momentum": lambda spec: spec.bn_momentum,
}  # fmt: skip


"""What each flag says of a spec: not needed where a file is only judged, and refused where the file is something else."""


def add_common(p: flags.Parser, **specs: QuantSpec) -> None:
    """The flags that every quantizing command has besides its own.

    Args:
        specs: a spec of each family that the command has, by the name that --help gives it.
    """
    p.add_argument("--refine", nargs="?", const=True, type=argtypes.path, metavar="F",
                   help="start from a float, sparse or pruned file (default: the refined file of --arch)")  # fmt: skip
    flags.add_network(p)
    flags.add_data(p)
    flags.add_training(p, **{family: partial(for_spec, spec) for family, spec in specs.items()})
    flags.add_machine(p)
    flags.add_output(p)


def body(args: argparse.Namespace, spec: QuantSpec) -> dict[str, Any]:
    """Train a quantized network.

    Args:
        spec: a QuantSpec that does not know the network's two ends yet; they are spared as its family does.
    """
    if args.refine is not None and args.cfg:
        raise UserError("--cfg contradicts --refine: the file has its own", "leave --cfg out")
    import models
    from engine.checkpoint import format as checkpoint
    from engine.cli.naming import SAVED, find, makes
    from engine.errors import about
    from engine.training.experiment import Experiment
    from models import check, legacy
    from quant import recipes
    from quant.hooks import clip_latent, freeze_late
    from quant.prepare import prepare, reads_sums

    prefix = (args.arch or args.default_arch).rpartition(":")[2]
    source = content = None
    if args.refine is not None:
        source = find(args.refine, SAVED / f"{prefix}_refine.pth", makes("prune.train --refine", args.arch))
        content = legacy.adopt(checkpoint.load(source), source)
        prefix = content["arch"].rpartition(":")[2]
    default = SAVED / f"{prefix}_{spec.name}.pth"
    if args.evaluate is not None:
        path = find(args.evaluate, args.save or default, shlex.join(flags.without(args.command[2:], "--evaluate")))
        return _evaluate(args, path, spec)

    if content is None:
        models.size(args.arch or args.default_arch, args.cfg)  # one that does not fit is found before pictures are read
    task = Experiment(args, default, source)
    model = None
    if content:
        with about(source):
            model = models.restore(content, args.arch)
    elif not args.quiet:
        _say_fresh(args)
    data = task.data(content)
    if content and model:
        arch, more = content["arch"], content["arch_args"]
    else:
        arch, more = args.arch or args.default_arch, {"classes": task.classes(data)}
        model = models.build(arch, args.cfg, **more)
        if ":" in arch:
            check.answers(model, arch, more["classes"], data.info.image_size)
        more = {**more, **model.arch_args}
    spec = spec.at_ends(*model.ends, reads_sums(model))
    if content is None and args.recipe != "seed" and spec.weight.kind == "affine":
        spec = replace(
            spec, bn_momentum=None
        )  # 0.01 is for statistics that exist: fresh ones would take epochs to arrive
    model = prepare(model, spec)
    recipe = recipes.for_spec(spec, data.info.name, refine=source is not None)
    if args.recipe == "seed":
        recipe = recipes.seed(spec, arch)
    stage = {"stage": "quantize", "spec": spec.to_dict()}
    hooks: dict[str, Any] = {}
    if spec.weight.kind in ("binary", "ternary"):
        hooks["constrain"] = clip_latent
    if spec.activation.kind == "affine" or spec.measured_inputs:
        hooks["on_epoch"] = freeze_late(args.epochs or recipe.epochs)
    identity = {**stage, "arch": arch, "cfg": list(model.cfg), "arch_args": more}
    rows, used = task.train(model, data, recipe, quantized=True, stage=identity, **hooks)
    judged = task.judge(model, data)
    before = content["transforms"] if content else []
    path = task.write(model, arch, more, data, task.metrics(judged, data),
                      [*before, {**stage, "epochs": used.epochs}])  # fmt: skip
    text = (
        f"{spec.name}: {data.judged} accuracy {judged.accuracy:.2f} % on {data.info.label} "
        f"({len(data.test):,} pictures)"
    )
    return {"text": text, "path": path, "spec": spec.to_dict(), "accuracy": judged.accuracy, "epochs": rows}


def _evaluate(args: argparse.Namespace, path: Path, spec: QuantSpec) -> dict[str, Any]:
    """Judge a file as what it is; flags that say otherwise are refused."""
    from engine.training.judging import judge_file
    from quant.restore import load, spec_of

    model, content = load(path, args.arch)
    spec_made = spec_of(content)
    was, made = spec_made or QuantSpec(), spec_made.name if spec_made else "float"
    given = [flag for flag in (word.partition("=")[0] for word in args.command) if flag in SAYS]
    if wrong := [flag for flag in given if SAYS[flag](was) != SAYS[flag](spec)]:
        raise UserError(f"{path} is {made}, and not what {wrong[0]} says", "leave the flags of quantization out")
    if args.evaluate is True and made != spec.name:
        raise UserError(f"{path} is {made}, the flags say {spec.name}", "leave the flags of quantization out")
    found = judge_file(args, path, model, content)
    return {**found, "text": f"{made}: {found['text']}"}


def _say_fresh(args: argparse.Namespace) -> None:
    arch = args.arch or args.default_arch
    print(
        f"notice: without --refine, {arch} starts with fresh weights{'' if args.cfg else ' and its own widths'}; "
        "--refine [F] starts from a trained file",
        file=sys.stderr,
    )
