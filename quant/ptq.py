"""python -m quant.ptq: quantize a float file without training, its ranges calibrated on a few hundred training pictures."""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence
from typing import Any

from engine.cli import argtypes, command, flags
from engine.errors import UserError

EXAMPLES = (
    "quant.ptq --calibrate kl",
    "quant.ptq --model models_save/nin_refine.pth --calibrate mse --Wbits 4 --Abits 8 --q_type 0",
)

LOST = 10
"""Points of accuracy whose loss says that this network has to be trained at these bits."""


def parser() -> flags.Parser:
    p = flags.Parser("quant.ptq", (__doc__ or "").partition(": ")[2], EXAMPLES)
    group = p.add_argument_group("quantization")
    group.add_argument(
        "--model",
        type=argtypes.path,
        metavar="F",
        help="float, sparse or pruned file (default: models_save/ARCH_refine.pth)",
    )
    group.add_argument("--calibrate", choices=["minmax", "percentile", "mse", "kl"], default="mse",
                       help="how activations are clipped (default: mse)")  # fmt: skip
    group.add_argument("--calibration_pictures", type=flags.number(int, 1), default=512, metavar="N",
                       help="training pictures to look at (default: 512)")  # fmt: skip
    for flag, what in (("--Wbits", "weights"), ("--Abits", "activations")):
        group.add_argument(
            flag, type=flags.number(int, 2, 8), default=8, metavar="K", help=f"of {what}, 2 to 8 (default: 8)"
        )
    group.add_argument("--q_type", type=flags.number(int, 0), choices=[0, 1], default=1,
                       help="0 symmetric, 1 asymmetric (default: 1)")  # fmt: skip
    group.add_argument(
        "--per_channel",
        action=argparse.BooleanOptionalAction,
        default=True,
        help="a weight grid for each filter (default), or one for all",
    )
    flags.add_network(p)
    flags.add_data(p)
    flags.add_machine(p)
    flags.add_output(p)
    return p


def body(args: argparse.Namespace) -> dict[str, Any]:
    if args.cfg:
        raise UserError("--cfg: the file has its own", "leave --cfg out")
    from dataclasses import replace

    import models
    from engine.checkpoint import format as checkpoint
    from engine.cli.naming import SAVED, find, makes
    from engine.errors import about
    from engine.training.experiment import Experiment
    from models import legacy
    from quant.calibrate import calibrate
    from quant.prepare import prepare, reads_sums
    from quant.spec import affine

    prefix = (args.arch or args.default_arch).rpartition(":")[2]
    source = find(args.model, SAVED / f"{prefix}_refine.pth", makes("prune.train --refine", args.arch))
    content = legacy.adopt(checkpoint.load(source), source)
    with about(source):
        model = models.restore(content, args.arch)
    prefix = content["arch"].rpartition(":")[2]
    task = Experiment(args, SAVED / f"{prefix}_ptq_{args.calibrate}{_suffix(args)}.pth", source)
    data = task.data(content)
    spec = affine(args.Wbits, args.Abits, args.q_type, True, args.per_channel).at_ends(*model.ends)
    quantized = prepare(model, replace(spec, bn_momentum=None)).to(task.device)
    before = task.judge(model, data, "before")
    with about(source):
        calibrate(quantized, data.train, args.calibrate, args.calibration_pictures, args.seed, sums=reads_sums(model))
    after = task.judge(quantized, data, "after")
    if (lost := before.accuracy - after.accuracy) > LOST:
        other = "" if args.calibrate == "mse" else "try --calibrate mse, or "
        print(
            f"warning: calibration lost {lost:.1f} points; {other}train: "
            f"python -m quant.wqaq --q_type {args.q_type} --refine {source}",
            file=sys.stderr,
        )
    stage = {
        "stage": "quantize", "spec": spec.to_dict(),
        "calibrate": args.calibrate, "pictures": min(args.calibration_pictures, len(data.train)),
    }  # fmt: skip
    path = task.write(quantized, content["arch"], content["arch_args"], data,
                      task.metrics(after, data, before=before.accuracy), [*content["transforms"], stage])  # fmt: skip
    text = (
        f"{spec.name} by {args.calibrate}: {data.judged} accuracy {before.accuracy:.2f} % -> {after.accuracy:.2f} % "
        f"on {data.info.label} ({len(data.test):,} pictures), {stage['pictures']} pictures looked at, nothing trained"
    )
    return {"text": text, "path": path, "accuracy_before": before.accuracy, "accuracy": after.accuracy}


def _suffix(args: argparse.Namespace) -> str:
    """What of the settings is not the default, for the file's name."""
    bits = "" if (args.Wbits, args.Abits) == (8, 8) else f"_w{args.Wbits}a{args.Abits}"
    return bits + ("" if args.q_type == 1 else "_q0") + ("" if args.per_channel else "_tensor")


def main(argv: Sequence[str] | None = None) -> int:
    return command.run(parser(), body, argv)


if __name__ == "__main__":
    sys.exit(main())
