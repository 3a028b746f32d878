"""python -m scripts.report: one table of any number of checkpoints, as Markdown, CSV, JSON and a picture."""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from engine import argtypes, flags, run
from engine.errors import UserError

EXAMPLES = (
    "scripts.report models_save/nin.pth models_save/nin_refine.pth models_save/nin_w8a8.pth",
    "scripts.report models_save/*.pth --save runs/report.md --units seed",
)


def parser() -> flags.Parser:
    p = flags.Parser("scripts.report", (__doc__ or "").partition(": ")[2], EXAMPLES)
    p.add_argument("files", type=argtypes.path, nargs="+", metavar="F", help="checkpoints; the first is the baseline")
    p.add_argument("--save", type=argtypes.path, default=Path("runs/report.md"), metavar="F",
                   help="the Markdown file; .csv, .json, .png go beside it (default: runs/report.md)")  # fmt: skip
    p.add_argument("--units", choices=["plain", "seed"], default="plain",
                   help="seed: MACs / 2^30 and parameters / 2^20, as in the original's tables")  # fmt: skip
    p.add_argument("--arch", type=argtypes.arch, metavar="M:F",
                   help="the network of your own that some of the files hold")  # fmt: skip
    p.add_argument("--json", action="store_true", help="print one JSON object instead of text")
    p.add_argument("--debug", action="store_true", help="show the traceback of a fault")
    return p


def body(args: argparse.Namespace) -> dict[str, Any]:
    from dataclasses import asdict

    from engine import report
    from engine.files import check_writable

    outputs = report.outputs(args.save)
    if clash := {path.resolve() for path in args.files} & {path.resolve() for path in outputs}:
        raise UserError(f"{clash.pop()} is both input and output", "name another --save")
    for path in outputs:
        check_writable(path)
    from scripts import describe

    rows = [describe.row(path, args.arch) for path in args.files]
    if args.save.exists():
        print(f"replaced {args.save}", file=sys.stderr)
    written = report.write(rows, args.save, args.units)
    if args.save.with_suffix(".png") not in written:
        print("notice: no picture without matplotlib: pip install '.[report]'", file=sys.stderr)
    text = f"{report.markdown(rows, args.units)}\n{report.NOTE}\nwritten: {', '.join(map(str, written))}"
    return {"text": text, "path": args.save, "rows": [asdict(row) for row in rows]}


def main(argv: Sequence[str] | None = None) -> int:
    return run.command(parser(), body, argv)


if __name__ == "__main__":
    sys.exit(main())
