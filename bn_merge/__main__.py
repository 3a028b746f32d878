"""python -m bn_merge: fold the batch norms of a trained file; the result holds codes and scales."""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence
from typing import Any

from bn_merge import names
from engine.cli import argtypes, command, flags
from engine.errors import BAD_CHECKPOINT, UserError

EXAMPLES = (
    "bn_merge --W 2",
    "bn_merge --model models_save/nin_w8a8.pth",
    "bn_merge --model models_save/nin_refine.pth",
)


def parser() -> flags.Parser:
    p = flags.Parser("bn_merge", (__doc__ or "").partition(": ")[2], EXAMPLES)
    p.add_argument(
        "--model", type=argtypes.path, metavar="F", help="the file to merge (default: models_save/ARCH_wWab.pth by --W)"
    )
    names.add_weights(p)
    flags.add_network(p)
    flags.add_data(p)
    flags.add_machine(p)
    flags.add_output(p)
    return p


def body(args: argparse.Namespace) -> dict[str, Any]:
    if args.cfg:
        raise UserError("--cfg: a merged network has the widths of its file", "leave --cfg out")
    from bn_merge import proof
    from bn_merge.merge import merge
    from engine.cli.naming import SAVED, find, makes
    from engine.training.experiment import Experiment
    from quant.restore import load, spec_of

    default = SAVED / f"{names.stem(args)}.pth"
    source = find(args.model, default, makes(f"quant.wbwtab --W {args.W or 2} --A 2", args.arch))
    model, content = load(source, args.arch)
    if any(t["stage"] == "merge" for t in content["transforms"]):
        raise UserError(f"{source} is merged already", "merge the file it was made from", BAD_CHECKPOINT)
    spec = spec_of(content)
    names.check_weights(args, source, spec.weight.letter if spec else "32")

    task = Experiment(args, source.with_name(f"{source.stem}_merged.pth"), source)
    data = task.data(content)
    merged = merge(model)
    proof.prove(model, content["arch"], next(iter(data.test.batches(proof.PICTURES)))[0])
    before, after = task.judge(model, data), task.judge(merged, data)
    agree = proof.agreement(before.logits, after.logits).agree
    metrics = task.metrics(after, data, before_merge=before.accuracy, agreement=agree / len(data.test))
    path = task.write(merged, content["arch"], content["arch_args"], data, metrics,
                      [*content["transforms"], {"stage": "merge"}])  # fmt: skip
    text = (
        f"{data.judged} accuracy {before.accuracy:.2f} % -> {after.accuracy:.2f} % on {data.info.label}; "
        f"the same answer on {agree:,} of {len(data.test):,} pictures"
    )
    return {"text": text, "path": path, "accuracy_before": before.accuracy, "accuracy": after.accuracy, "agree": agree}


def main(argv: Sequence[str] | None = None) -> int:
    return command.run(parser(), body, argv)


if __name__ == "__main__":
    sys.exit(main())
