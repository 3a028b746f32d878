"""python -m scripts.results: fill the results ladder row by row; stopped at any time, it goes on where it was."""

from __future__ import annotations

import argparse
import re
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from engine.cli import argtypes, command
from engine.cli.flags import Parser, flag, part
from engine.cli.options import Command, Data, Device, Printing
from engine.errors import UserError

EXAMPLES = (
    "scripts.results --dataset digits",
    "scripts.results --dataset digits --rows headline --seeds 3",
    "scripts.results --dataset imagefolder --data PATH --rows nin_3x3 'int8*' --epochs 40 --minutes 60",
)


@dataclass(frozen=True, kw_only=True)
class Machine(Printing, Device):
    """Where to run and what to print."""

    title = "machine"


@dataclass(frozen=True, kw_only=True)
class Options(Command):
    """Which rows, how long, and where the table goes."""

    rows: list[str] = flag(
        "--rows", nargs="+", default=["all"], metavar="ROW",
        help="names, patterns like 'int8*', headline, or all (default: all)",
    )  # fmt: skip
    epochs: int | None = flag(
        "--epochs", type=argtypes.number(int, 1, 100_000), metavar="N",
        help="of a float training; refining and quantizing take half (default: as each recipe says)",
    )  # fmt: skip
    seeds: int = flag("--seeds", type=argtypes.number(int, 1, 1000), default=1, metavar="K", help="seeds 1 to K")
    minutes: float | None = flag(
        "--minutes", type=argtypes.number(float, 0, open_low=True), metavar="M",
        help="stop cleanly after M minutes; the same command goes on from there",
    )  # fmt: skip
    jobs: int = flag(
        "--jobs", type=argtypes.number(int, 1, 64), default=1, metavar="J",
        help="rows at once, for a GPU that one row does not fill (default: 1)",
    )  # fmt: skip
    recipe: str = flag(
        "--recipe", choices=["default", "original", "seed"], default="default",
        help="original (or seed): that repository's",
    )  # fmt: skip
    precision: str = flag("--precision", choices=["auto", "fp32", "bf16"], default="auto", help="of float training")
    table: bool = flag(
        "--table", action="store_true",
        help="run nothing, write table and pictures from what is there; needs --dataset (and --data, --val) alone",
    )  # fmt: skip
    readme: list[Path] = flag(
        "--readme", type=argtypes.path, nargs="+", default=[], metavar="F",
        help="put the table between the markers <!-- results:NAME --> of these files (default: README.md and "
        "README.zh-CN.md, where they have them)",
    )  # fmt: skip
    data: Data = part(
        Data,
        dataset={"choices": ["cifar10", "cifar100", "digits", "imagefolder"], "help": "results belong to one: name it"},
    )
    machine: Machine = part(
        Machine, threads={"help": "CPU threads, shared by the --jobs (default: OMP_NUM_THREADS for each, else all)"}
    )

    def __post_init__(self) -> None:
        if self.data.dataset is None:
            raise UserError(
                "results belong to one data set", "name it: --dataset digits, cifar10, cifar100 or imagefolder"
            )

    @property
    def name(self) -> str:
        """The folder of the data set's results."""
        name = self.data.root.resolve().name if self.data.dataset == "imagefolder" else str(self.data.dataset)
        name = re.sub(r"[^\w.-]+", "-", name)
        return f"{name}-val{self.data.val}" if self.data.val else name


def parser() -> Parser:
    return Parser("scripts.results", __doc__, EXAMPLES, Options)


def body(options: Options) -> dict[str, Any]:
    from engine.system.files import check_writable
    from scripts.ladder import table
    from scripts.ladder.rows import choose

    rows, name = choose(options.rows), options.name
    folder = Path("results") / name
    readmes = table.readmes(options.readme, name)
    for path in (folder / "table.md", *readmes):
        check_writable(path, "work in a folder that can be written")
    before = table.read(folder)
    if not before and options.table:
        raise UserError(f"no results in {folder}/", "run the ladder there first, without --table")
    left, failed = 0, None
    if not options.table:
        from scripts.ladder import fill  # needs torch

        left, failed = fill.fill(argparse.Namespace(**options.flat()), rows, folder, Path("runs/results") / name)
        if table.read(folder) == before:
            there = sum(len(before.get(row.name, ())) for row in rows)
            print(
                f"nothing new: {there} results of these rows were in {folder}/ before, and none was added",
                file=sys.stderr,
            )
            readmes = readmes if options.readme else []
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


def main(argv: Sequence[str] | None = None) -> int:
    return command.run(parser(), body, argv)


if __name__ == "__main__":
    sys.exit(main())
