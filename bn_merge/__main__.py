"""python -m bn_merge: fold the batch norms of a trained file; the result holds codes and scales."""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence
from typing import Any

from engine import argtypes, flags, run
from engine.errors import BAD_CHECKPOINT, UserError

EXAMPLES = (
    "bn_merge --W 2",
    "bn_merge --model models_save/nin_w8a8.pth",
    "bn_merge --model models_save/nin_refine.pth",
)

LETTER = {2: "b", 3: "t", 32: "32"}


def parser() -> flags.Parser:
    p = flags.Parser("bn_merge", (__doc__ or "").partition(": ")[2], EXAMPLES)
    p.add_argument(
        "--model", type=argtypes.path, metavar="F", help="the file to merge (default: models_save/ARCH_wWab.pth by --W)"
    )
    p.add_argument(
        "--W",
        type=flags.number(int, 0),
        choices=sorted(LETTER),
        help="2 binary, 3 ternary, 32 float weights: checked against the file",
    )
    flags.add_network(p)
    flags.add_data(p)
    flags.add_machine(p)
    flags.add_output(p)
    return p


def body(args: argparse.Namespace) -> dict[str, Any]:
    if args.cfg:
        raise UserError("--cfg: a merged network has the widths of its file", "leave --cfg out")
    from bn_merge.merge import merge
    from engine.experiment import SAVED, Experiment, find, makes
    from quant.restore import load, spec_of

    prefix = (args.arch or args.default_arch).rpartition(":")[2]
    default = SAVED / f"{prefix}_w{LETTER[args.W or 2]}ab.pth"
    source = find(args.model, default, makes(f"quant.wbwtab --W {args.W or 2} --A 2", args.arch))
    model, content = load(source, args.arch)
    if any(t["stage"] == "merge" for t in content["transforms"]):
        raise UserError(f"{source} is merged already", "merge the file it was made from", BAD_CHECKPOINT)
    spec = spec_of(content)
    letter = spec.weight.letter if spec else "32"
    if args.W and letter != LETTER[args.W]:
        raise UserError(
            f"--W {args.W}, but the weights of {source} are of kind {letter}", "leave --W out", BAD_CHECKPOINT
        )

    task = Experiment(args, source.with_name(f"{source.stem}_merged.pth"), source)
    data = task.data(content)
    merged = merge(model)
    before, after = task.judge(model, data), task.judge(merged, data)
    agree = int((before.logits.argmax(1) == after.logits.argmax(1)).sum())
    metrics = task.metrics(after, data, before_merge=before.accuracy, agreement=agree / len(data.test))
    path = task.write(merged, content["arch"], content["arch_args"], data, metrics,
                      [*content["transforms"], {"stage": "merge"}])  # fmt: skip
    text = (
        f"{data.judged} accuracy {before.accuracy:.2f} % -> {after.accuracy:.2f} % on {data.info.label}; "
        f"the same answer on {agree:,} of {len(data.test):,} pictures"
    )
    return {"text": text, "path": path, "accuracy_before": before.accuracy, "accuracy": after.accuracy, "agree": agree}


def main(argv: Sequence[str] | None = None) -> int:
    return run.command(parser(), body, argv)


if __name__ == "__main__":
    sys.exit(main())
