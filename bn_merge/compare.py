"""python -m bn_merge.compare: a network before and after merging, over the whole test set."""

from __future__ import annotations

import argparse
import shlex
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from bn_merge import names
from engine.cli import argtypes, command, flags
from engine.errors import BAD_CHECKPOINT, UserError

EXAMPLES = (
    "bn_merge.compare --W 2",
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
        help="the merged file (default: models_save/ARCH_wWab_merged.pth by --W), or both, unmerged first",
    )
    p.add_argument(
        "--float64",
        action="store_true",
        help="compute in float64; also with a fresh fold, which is not rounded to a file's fp32",
    )
    names.add_weights(p)
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
    from bn_merge.proof import agreement
    from engine.cli.naming import SAVED, find, makes
    from engine.system import device, files
    from engine.training.choose_data import open_data
    from engine.training.judging import judged
    from quant.restore import load, spec_of

    default = SAVED / f"{names.stem(args)}_merged.pth"
    maker = makes(f"bn_merge --W {args.W}" if args.W else "bn_merge", args.arch)
    merged_path = find(args.files[-1] if args.files else None, default, maker)
    merged, content = load(merged_path, args.arch)
    if not _is_merged(content):
        hint = f"make the merged file with: {_merging(merged_path, args.arch)}"
        if len(args.files) == 2 and _is_merged(load(args.files[0], args.arch)[1]):
            hint = "name the unmerged one first"
        raise UserError(f"{merged_path} is not merged", hint, BAD_CHECKPOINT)
    spec = spec_of(content)
    names.check_weights(args, merged_path, spec.weight.letter if spec else "32")
    path = args.files[0] if len(args.files) == 2 else _parent(merged_path, content, args.arch)
    model, unmerged = load(path, args.arch)
    if _is_merged(unmerged):
        raise UserError(f"{path} is merged, too", "name the unmerged one first", BAD_CHECKPOINT)
    classes = [c["arch_args"]["classes"] for c in (unmerged, content)]
    if classes[0] != classes[1]:
        raise UserError(
            f"{path} tells {classes[0]} classes apart, {merged_path} {classes[1]}",
            "name the file that was merged",
            BAD_CHECKPOINT,
        )
    if files.sha256(path) != content["provenance"]["parent_sha256"]:
        print(f"warning: {path} is not the file that {merged_path} was merged from", file=sys.stderr)
    if args.float64:
        model, merged = model.double(), merged.double()
    fresh = merge(model) if args.float64 else None
    where = device.choose(args.device)
    data = open_data(args, where, content)
    before = judged(args, model.to(where), data, "unmerged")
    after = judged(args, merged.to(where), data, "merged")
    found = agreement(before.logits, after.logits)
    # seen: 23 of 440,640 int8 codes turned over, and the logits of one picture of 360 moved by 0.006
    turning = "; a code on an edge may turn over" if spec and spec.activation.kind != "float" else ""
    rounded = f" (the file's numbers are fp32{turning})" if args.float64 else ""
    lines = [
        f"{path} against {merged_path}, {'float64' if args.float64 else 'fp32'}, {found.pictures:,} {data.judged} pictures of {data.info.label}",
        f"accuracy      {before.accuracy:.2f} % -> {after.accuracy:.2f} %",
        f"same answer   {found.agree:,} of {found.pictures:,} ({100 * found.agree / found.pictures:.2f} %)",
        f"largest logit difference {_shown(found.gap)}{rounded}",
        *(f"  picture {i}: its two best logits were {_shown(gap)} apart" for i, gap in found.differ.items()),
    ]
    result = {
        "accuracy_before": before.accuracy, "accuracy": after.accuracy, "pictures": found.pictures,
        "agree": found.agree, "largest_logit_difference": found.gap, "top2_gaps": found.differ,
    }  # fmt: skip
    if fresh:
        exact = agreement(before.logits, judged(args, fresh.to(where), data, "a fresh fold").logits)
        result |= {"fresh_agree": exact.agree, "fresh_largest_logit_difference": exact.gap}
        lines.append(
            f"a fresh fold of {path}, float64: same answer {exact.agree:,} of {exact.pictures:,}, "
            f"largest logit difference {_shown(exact.gap)}"
        )
    return {"text": "\n".join(lines), **result}


def _is_merged(content: dict[str, Any]) -> bool:
    return any(t["stage"] == "merge" for t in content["transforms"])


def _shown(value: float | None) -> str:
    return "not a finite number" if value is None else f"{value:.3g}"


def _merging(path: Path, arch: str | None) -> str:
    from engine.cli.naming import makes

    return f"python -m {makes(f'bn_merge --model {shlex.quote(str(path))}', arch)}"


def _parent(path: Path, content: dict[str, Any], arch: str | None) -> Path:
    """The unmerged file, known by its hash, wherever in the folder it is now."""
    from engine.system.files import sha256

    wanted = content["provenance"]["parent_sha256"]
    recorded = Path(content["provenance"]["parent"] or "")
    named = [recorded, path.with_name(recorded.name)] if recorded.name else []
    for candidate in [*named, *sorted(path.parent.glob("*.pth"))]:
        if candidate.is_file() and sha256(candidate) == wanted:
            return candidate
    hint = "name it: python -m bn_merge.compare UNMERGED MERGED"
    if again := next((c for c in named if c.is_file() and c.resolve() != path.resolve()), None):
        hint += f", or merge again: {_merging(again, arch)}"  # there it is, with other weights
    raise UserError(f"the file that {path} was merged from is not in {path.parent}/", hint, BAD_CHECKPOINT)


def main(argv: Sequence[str] | None = None) -> int:
    return command.run(parser(), body, argv)


if __name__ == "__main__":
    sys.exit(main())
