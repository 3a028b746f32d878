"""Fill the ladder: which steps its rows still need, what each is called, and a JSON file for each row that is done."""

from __future__ import annotations

import argparse
import math
import os
import sys
import time
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path

import torch

from engine.errors import LOCKED, UserError
from engine.system.files import check_writable, write_json
from engine.system.lock import Lock
from scripts.ladder import fingerprint, notes, record, steps
from scripts.ladder.rows import ROWS, Row
from scripts.ladder.runner import Node, Runner

REMEDY = "work in a folder that can be written"


def fill(args: argparse.Namespace, rows: list[Row], folder: Path, work: Path) -> tuple[int, dict[Node, UserError]]:
    """Make the rows that are not there yet, seed by seed; gives how many are left, and which steps failed.

    Everything that can be known before the first step is found out before anything is written.

    Raises:
        UserError: exit 2 for flags or a GPU that this machine or ladder has not, exit 4 for the pictures, 6, 7.
    """
    hardware = {**record.hardware(args.device), "threads": _threads(args)}
    for path in (folder / "ladder.json", work / "s1" / "nin.json"):
        check_writable(path, REMEDY)
    now = fingerprint.of(args)
    deadline = time.monotonic() + 60 * args.minutes if args.minutes else math.inf
    with _locked(work):
        begun = (folder.glob("*-s*.json"), work.glob("s*/*.json"), work.glob("s*/*/state.pth"))
        fingerprint.settle(folder / "ladder.json", now, any(any(found) for found in begun))
        filling = _Filling(args, hardware, folder)
        filling.plan(rows, work)
        runner = Runner(lambda node: command(args, node), args.jobs, deadline, hardware)
        while filling.wanted and not runner.failed:  # once more for rows that went stale on the way
            nodes = dict.fromkeys(step for node in filling.wanted for step in node.chain)
            filling.catch_up(nodes)  # with an earlier run that was stopped before it wrote a row
            if not runner.run(list(nodes), filling.ended):
                print("the time is over", file=sys.stderr)
                break
            filling.catch_up(nodes)  # with rows that were lost together with a parent
    return sum(len(found) for found in filling.wanted.values()), runner.failed


class _Filling:
    """The rows that are still wanted, by their last step."""

    def __init__(self, args: argparse.Namespace, hardware: dict, folder: Path) -> None:
        self.args, self.hardware, self.folder = args, hardware, folder
        self.wanted: dict[Node, list[Row]] = {}

    def _path(self, row: Row, seed: int) -> Path:
        return self.folder / f"{row.name}-s{seed}.json"

    def plan(self, rows: list[Row], work: Path) -> None:
        """Want the rows that have no result, and those that have gone stale, whoever asked for them."""
        for seed in range(1, self.args.seeds + 1):
            for row in ROWS:
                path = self._path(row, seed)
                if (row in rows and not path.exists()) or (path.exists() and _load(path)["status"] == "stale"):
                    self.wanted.setdefault(Node(work / f"s{seed}", seed, row.step), []).append(row)

    def catch_up(self, nodes: Iterable[Node]) -> None:
        for node in nodes:
            if node.ended():
                self.ended(node)

    def ended(self, node: Node) -> None:
        """Write the rows that a step completes; those that hang on another file of this step have gone stale."""
        self._outdate(node)
        for row in self.wanted.pop(node, ()):
            known = record.describe(row, node, lambda n: command(self.args, n), self.hardware)
            write_json(self._path(row, node.seed), known)
            shown = f"{known['accuracy']:.2f} %" if known["status"] == "done" else known["status"]
            print(f"{row.name}, seed {node.seed}: {shown}", file=sys.stderr, flush=True)

    def _outdate(self, node: Node) -> None:
        """Rows of one seed are compared with each other, so they must all be of the same files."""
        made, stale = (node.ended() or {}).get("sha256"), []
        for row in ROWS:
            path = self._path(row, node.seed)
            if node.step not in steps.chain(row.step) or not path.exists():
                continue
            result = _load(path)
            if result["status"] != "stale" and result.get("sha256", {}).get(node.step) != made:
                write_json(path, {"row": row.name, "label": row.label, "seed": node.seed, "status": "stale"})
                self.wanted.setdefault(Node(node.folder, node.seed, row.step), []).append(row)
                stale.append(row.name)
        if stale:
            print(
                f"notice: {node.step}, seed {node.seed}, was made anew and came out differently; "
                f"rows that hang on it are run again: {', '.join(stale)}",
                file=sys.stderr,
            )


def _load(path: Path) -> dict:
    return notes.load(path, "row", "seed", "status")


@contextmanager
def _locked(work: Path) -> Iterator[None]:
    """One ladder at a time in a work folder."""
    work.mkdir(parents=True, exist_ok=True)
    try:
        lock = Lock(work)
    except UserError as fault:
        hint = "wait for it; its --jobs runs several rows at once" if fault.code == LOCKED else REMEDY
        raise UserError(str(fault), hint, fault.code) from fault
    try:
        yield
    finally:
        lock.release()


def _threads(args: argparse.Namespace) -> int:
    """Of each step: OMP_NUM_THREADS is said of one process, --threads of all that run at once."""
    total = torch.get_num_threads()
    return total if "OMP_NUM_THREADS" in os.environ and not args.threads else max(1, total // args.jobs)


def command(args: argparse.Namespace, node: Node) -> list[str]:
    """The words after `python -m`, as a user would type them."""
    files = {parent.step: str(parent.model) for parent in node.parents}
    words = [word.format_map(files) for word in steps.STEPS[node.step].split()]
    words += ["--dataset", args.dataset, "--data", str(args.data), "--seed", str(node.seed), "--device", args.device]
    words += ["--save", str(node.model), "--eval_batch_size", str(args.eval_batch_size)]
    if args.num_workers != 2:  # a checkpoint holds its command: the default says nothing, so that files stay the same
        words += ["--num_workers", str(args.num_workers)]
    for flag in ("image_size", "val"):
        if value := getattr(args, flag):
            words += [f"--{flag}", str(value)]
    if (flip := args.flip) is not None:
        words.append("--flip" if flip else "--no-flip")
    if words[0] in ("prune.train", "quant.wqaq", "quant.wbwtab"):
        words += ["--run_dir", str(node.model.with_suffix(""))]
        if epochs := steps.epochs(node.step, args.epochs):
            words += ["--epochs", str(epochs)]
        if args.recipe in ("original", "seed"):
            words += ["--recipe", "seed"]
        if words[0] == "prune.train":
            words += ["--precision", args.precision]
    return words
