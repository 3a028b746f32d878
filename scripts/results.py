"""python -m scripts.results: fill the results ladder row by row; stopped at any time, it goes on where it was."""

from __future__ import annotations

import argparse
import json
import math
import re
import sys
import time
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from engine import argtypes, flags, run
from engine.errors import UserError

if TYPE_CHECKING:
    from scripts.ladder import Row
    from scripts.ladder_run import Node

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
    group.add_argument("--table", action="store_true", help="run nothing, write table and pictures from what is there")
    group.add_argument("--readme", type=argtypes.path, nargs="+", default=[], metavar="F",
                       help="also put the table between the markers <!-- results:NAME --> of these files")  # fmt: skip
    flags.add_data(p)
    group = p.add_argument_group("machine")
    group.add_argument("--device", choices=["auto", "cpu", "cuda"], default="auto")
    group.add_argument("--json", action="store_true", help="print one JSON object instead of text")
    group.add_argument("--debug", action="store_true", help="show the traceback of a fault")
    return p


def body(args: argparse.Namespace) -> dict[str, Any]:
    from engine.files import check_writable
    from scripts import ladder, ladder_table
    from scripts.ladder_run import Node, Runner

    if args.dataset in (None, "auto"):
        raise UserError("results belong to one data set", "name it: --dataset digits, cifar10, cifar100 or imagefolder")
    rows, name = ladder.choose(args.rows), _name(args)
    folder, work = Path("results") / name, Path("runs/results") / name
    check_writable(folder / "ladder.json")
    for readme in args.readme:
        ladder_table.check_markers(readme, name)
        check_writable(readme)
    _same_ladder(args, folder / "ladder.json")
    deadline = time.monotonic() + 60 * args.minutes if args.minutes else math.inf
    nodes: dict[Node, None] = {}
    wanted: dict[Node, list[tuple[Row, Path]]] = {}
    for seed in range(1, args.seeds + 1):
        for row in rows:
            target = folder / f"{row.name}-s{seed}.json"
            if not target.exists():
                chain = [Node(work / f"s{seed}", seed, step) for step in ladder.chain(row.step)]
                nodes |= dict.fromkeys(chain)
                wanted.setdefault(chain[-1], []).append((row, target))

    def ended(node: Node) -> None:
        for row, target in wanted.pop(node, ()):
            _write_row(args, row, node, target)

    def catch_up() -> None:
        for node in [node for node in wanted if node.ended()]:
            ended(node)

    failed: dict[Node, int] = {}
    if not args.table:
        runner = Runner(lambda node: _command(args, node), args.jobs, deadline)
        catch_up()  # with an earlier run that was stopped before it wrote a row
        if not runner.run(list(nodes), ended):
            print("the time is over", file=sys.stderr)
        catch_up()  # with rows that were lost together with a parent
        failed = runner.failed
    text = ladder_table.write(folder, rows, args.readme)
    if failed:
        node, code = next(iter(failed.items()))
        raise UserError(f"{len(failed)} steps failed, the first one {node.step}", f"see {node.folder}/*.log", code)
    left = sum(len(targets) for targets in wanted.values())
    if left and not args.table:
        text += f"\n{left} rows are left: the same command goes on with them"
    return {"text": text, "path": folder / "table.md", "left": left}


def _name(args: argparse.Namespace) -> str:
    """The folder of a data set's results."""
    name = args.data.resolve().name if args.dataset == "imagefolder" else args.dataset
    name = re.sub(r"[^\w.-]+", "-", name)
    return f"{name}-val{args.val}" if args.val else name


def _same_ladder(args: argparse.Namespace, path: Path) -> None:
    """Write down what this ladder is, or refuse to mix it with another one."""
    from engine import datasets
    from engine.files import write_json
    from quant import recipes
    from scripts import ladder

    pictures = ""
    if args.dataset == "imagefolder":
        train, test, names = datasets.folder_parts(args.data)
        pictures = f"{len(train)} + {len(test)} pictures of {len(names)} classes"
    short = "digits" if args.dataset == "digits" else "other"
    now = {
        "data set": f"{args.dataset} {pictures}".strip(),
        "--image_size": args.image_size,
        "--val": args.val,
        "--epochs": args.epochs,
        "--recipe": args.recipe,
        "--precision": args.precision,
        **{f"recipe of {family}": text for family, text in recipes.table(short, args.recipe == "seed").items()},
        **{f"step {name}": line for name, line in ladder.STEPS.items()},
    }
    was = json.loads(path.read_text()) if path.exists() else {}
    changed = [f"{key}: {_said(was[key])} -> {_said(now.get(key))}" for key in was if was[key] != now.get(key)]
    if changed:
        raise UserError(
            f"{path.parent}/ holds another ladder: {'; '.join(changed[:3])}",
            f"repeat its flags, or move {path.parent}/ and {Path('runs') / path.parent}/ away",
        )
    if not args.table and was != now:
        write_json(path, now)


def _said(value: Any) -> str:
    return "default" if value is None else str(value)


def _command(args: argparse.Namespace, node: Node) -> list[str]:
    """The words after `python -m`, as a user would type them."""
    from scripts import ladder

    files = {parent.step: str(parent.model) for parent in node.parents}
    words = [word.format_map(files) for word in ladder.STEPS[node.step].split()]
    words += ["--dataset", args.dataset, "--data", str(args.data), "--seed", str(node.seed), "--device", args.device]
    words += ["--save", str(node.model), "--eval_batch_size", str(args.eval_batch_size)]
    for flag in ("image_size", "val"):
        if value := getattr(args, flag):
            words += [f"--{flag}", str(value)]
    if words[0] in ("prune.train", "quant.wqaq", "quant.wbwtab"):
        words += ["--run_dir", str(node.model.with_suffix(""))]
        if epochs := ladder.epochs(node.step, args.epochs):
            words += ["--epochs", str(epochs)]
        if args.recipe == "seed":
            words += ["--recipe", "seed"]
        if words[0] == "prune.train":
            words += ["--precision", args.precision]
    return words


def _write_row(args: argparse.Namespace, row: Row, node: Node, target: Path) -> None:
    """One JSON file for one row and seed: what it shows and everything that it was made from."""
    from engine.files import write_json
    from scripts import ladder_row

    known = ladder_row.describe(row, node, lambda n: _command(args, n))
    write_json(target, {**known, **ladder_row.hardware(args.device)})
    shown = f"{known['accuracy']:.2f} %" if known["status"] == "done" else known["status"]
    print(f"{row.name}, seed {node.seed}: {shown}", file=sys.stderr, flush=True)


def main(argv: Sequence[str] | None = None) -> int:
    return run.command(parser(), body, argv)


if __name__ == "__main__":
    sys.exit(main())
