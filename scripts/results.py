"""python -m scripts.results: fill the results ladder row by row; stopped at any time, it goes on where it was."""

from __future__ import annotations

import argparse
import re
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from engine.cli import argtypes, command, flags
from engine.errors import UserError

EXAMPLES = (
    "scripts.results --dataset digits",
    "scripts.results --dataset digits --rows headline --seeds 3",
    "scripts.results --dataset imagefolder --data PATH --rows nin_3x3 'int8*' --epochs 40 --minutes 60",
)


def parser() -> flags.Parser:
    p = flags.Parser("scripts.results", (__doc__ or "").partition(": ")[2], EXAMPLES)
    group = p.add_argument_group("ladder")
    group.add_argument("--rows", nargs="+", default=["all"], metavar="ROW",
                       help="names, patterns like 'int8*', headline, or all (default: all)")  # fmt: skip
    group.add_argument("--epochs", type=argtypes.number(int, 1, 100_000), metavar="N",
                       help="of a float training; refining and quantizing take half (default: as each recipe says)")  # fmt: skip
    group.add_argument("--seeds", type=argtypes.number(int, 1, 1000), default=1, metavar="K", help="seeds 1 to K")
    group.add_argument("--minutes", type=argtypes.number(float, 0, open_low=True), metavar="M",
                       help="stop cleanly after M minutes; the same command goes on from there")  # fmt: skip
    group.add_argument("--jobs", type=argtypes.number(int, 1, 64), default=1, metavar="J",
                       help="rows at once, for a GPU that one row does not fill (default: 1)")  # fmt: skip
    group.add_argument("--recipe", choices=["default", "seed"], default="default", help="seed: the original's")
    group.add_argument("--precision", choices=["auto", "fp32", "bf16"], default="auto", help="of float training")
    group.add_argument("--table", action="store_true",
                       help="run nothing, write table and pictures from what is there; needs --dataset (and --data, "
                       "--val) alone")  # fmt: skip
    group.add_argument("--readme", type=argtypes.path, nargs="+", default=[], metavar="F",
                       help="put the table between the markers <!-- results:NAME --> of these files (default: "
                       "README.md and README.zh-CN.md, where they have them)")  # fmt: skip
    flags.add_data(p, auto=False)
    group = p.add_argument_group("machine")
    group.add_argument("--device", choices=["auto", "cpu", "cuda"], default="auto")
    group.add_argument("--cpu", action="store_true", help="same as --device cpu")
    group.add_argument("--threads", type=argtypes.number(int, 1, 1024), metavar="N",
                       help="CPU threads, shared by the --jobs (default: OMP_NUM_THREADS for each, else all)")  # fmt: skip
    group.add_argument("--json", action="store_true", help="print one JSON object instead of text")
    group.add_argument("--debug", action="store_true", help="show the traceback of a fault")
    return p


def body(args: argparse.Namespace) -> dict[str, Any]:
    from engine.system.files import check_writable
    from scripts.ladder import table
    from scripts.ladder.rows import choose

    if args.dataset is None:
        raise UserError("results belong to one data set", "name it: --dataset digits, cifar10, cifar100 or imagefolder")
    rows, name = choose(args.rows), _name(args)
    folder = Path("results") / name
    readmes = table.readmes(args.readme, name)
    for path in (folder / "table.md", *readmes):
        check_writable(path, "work in a folder that can be written")
    before = table.read(folder)
    if not before and args.table:
        raise UserError(f"no results in {folder}/", "run the ladder there first, without --table")
    left, failed = 0, None
    if not args.table:
        from scripts.ladder import fill  # needs torch

        left, failed = fill.fill(args, rows, folder, Path("runs/results") / name)
        if table.read(folder) == before:
            there = sum(len(before.get(row.name, ())) for row in rows)
            print(
                f"nothing new: {there} results of these rows were in {folder}/ before, and none was added",
                file=sys.stderr,
            )
            readmes = readmes if args.readme else []
    results = table.write(folder, readmes)
    if failed:
        node, fault = next(iter(failed.items()))
        if len({(str(f), f.hint, f.code) for f in failed.values()}) == 1:
            raise UserError(str(fault), fault.hint, fault.code)
        raise UserError(
            f"{len(failed)} steps failed, the first one {node.step}: {fault}", f"see {node.folder}/*.log", fault.code
        )
    text = table.plain(results, rows)
    if left:
        text += f"\nrows left: {left}; the same command goes on with them"
    shown = [
        {key: result.get(key) for key in ("row", "seed", "status", "accuracy")}
        for row in rows for result in results.get(row.name, ())
    ]  # fmt: skip
    return {"text": text, "path": folder / "table.md", "left": left, "rows": shown}


def _name(args: argparse.Namespace) -> str:
    """The folder of a data set's results."""
    name = args.data.resolve().name if args.dataset == "imagefolder" else args.dataset
    name = re.sub(r"[^\w.-]+", "-", name)
    return f"{name}-val{args.val}" if args.val else name


def main(argv: Sequence[str] | None = None) -> int:
    return command.run(parser(), body, argv)


if __name__ == "__main__":
    sys.exit(main())
