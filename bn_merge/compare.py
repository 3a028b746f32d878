"""python -m bn_merge.compare: a network before and after merging, over the whole test set."""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from engine import argtypes, flags, run
from engine.errors import BAD_CHECKPOINT, UserError

EXAMPLES = (
    "bn_merge.compare",
    "bn_merge.compare models_save/nin_w8a8_merged.pth",
    "bn_merge.compare models_save/nin_w8a8.pth models_save/nin_w8a8_merged.pth --float64",
)


def parser() -> flags.Parser:
    p = flags.Parser("bn_merge.compare", (__doc__ or "").partition(": ")[2], EXAMPLES)
    p.add_argument(
        "files",
        type=argtypes.path,
        nargs="*",
        metavar="F",
        help="the merged file (default: models_save/nin_wbab_merged.pth), or both, unmerged first",
    )
    p.add_argument(
        "--float64", action="store_true", help="compute in float64, with a fold that is not rounded to the file's fp32"
    )
    flags.add_network(p)
    flags.add_data(p)
    flags.add_machine(p)
    return p


def body(args: argparse.Namespace) -> dict[str, Any]:
    if len(args.files) > 2:
        raise UserError("more than two files", "name the merged file, or the unmerged and the merged one")
    if args.cfg:
        raise UserError("--cfg: the files have their own", "leave --cfg out")
    from bn_merge.merge import merge
    from engine import device
    from engine.experiment import SAVED, find, judged, makes
    from engine.matching import open_data
    from quant.restore import load

    prefix = (args.arch or args.default_arch).rpartition(":")[2]
    default = SAVED / f"{prefix}_wbab_merged.pth"
    merged_path = find(args.files[-1] if args.files else None, default, makes("bn_merge", args.arch))
    merged, content = load(merged_path, args.arch)
    if not any(t["stage"] == "merge" for t in content["transforms"]):
        raise UserError(f"{merged_path} is not merged", "make it with: python -m bn_merge", BAD_CHECKPOINT)
    path = args.files[0] if len(args.files) == 2 else _parent(merged_path, content)
    model, _ = load(path, args.arch)
    if args.float64:
        model = model.double()
        merged = merge(model)
    where = device.choose(args.device)
    data = open_data(args, where, content)
    before = judged(args, model.to(where), data, "unmerged")
    after = judged(args, merged.to(where), data, "merged")
    gap = (before.logits - after.logits).abs().max().item()
    differ = (before.logits.argmax(1) != after.logits.argmax(1)).nonzero().flatten()
    top = before.logits.topk(2, 1).values
    gaps = {int(i): float(top[i, 0] - top[i, 1]) for i in differ}
    count = len(data.test)
    lines = [
        f"{path} against {merged_path}, {'float64' if args.float64 else 'fp32'}, {count:,} {data.judged} pictures of {data.info.label}",
        f"accuracy      {before.accuracy:.2f} % -> {after.accuracy:.2f} %",
        f"same answer   {count - len(gaps):,} of {count:,} ({100 * (1 - len(gaps) / count):.2f} %)",
        f"largest logit difference {gap:.3g}",
        *(f"  picture {i}: its two best logits were {g:.3g} apart" for i, g in gaps.items()),
    ]
    return {
        "text": "\n".join(lines), "accuracy_before": before.accuracy, "accuracy": after.accuracy, "pictures": count,
        "agree": count - len(gaps), "largest_logit_difference": gap, "top2_gaps": gaps,
    }  # fmt: skip


def _parent(path: Path, content: dict[str, Any]) -> Path:
    """The unmerged file, known by its hash, wherever in the folder it is now."""
    from engine.checkpoint import sha256

    wanted = content["provenance"]["parent_sha256"]
    recorded = Path(content["provenance"]["parent"] or "")
    for candidate in [recorded, path.with_name(recorded.name), *sorted(path.parent.glob("*.pth"))]:
        if candidate.is_file() and sha256(candidate) == wanted:
            return candidate
    raise UserError(
        f"the file that {path} was merged from is not in {path.parent}/",
        "name it: python -m bn_merge.compare UNMERGED MERGED",
        BAD_CHECKPOINT,
    )


def main(argv: Sequence[str] | None = None) -> int:
    return run.command(parser(), body, argv)


if __name__ == "__main__":
    sys.exit(main())
