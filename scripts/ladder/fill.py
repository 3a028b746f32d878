"""Fill the ladder: which steps its rows still need, what each is called, and a JSON file for each row that is done."""

from __future__ import annotations

import math
import os
import sys
import time
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import torch

from engine.errors import LOCKED, UserError
from engine.system.files import check_writable
from engine.system.lock import Lock
from engine.system.said import notice
from scripts.ladder import fingerprint, record, result, rows as ladder, steps
from scripts.ladder.options import Options
from scripts.ladder.result import Done, Stale
from scripts.ladder.rows import LadderRow
from scripts.ladder.runner import Node, Runner

WRITABLE_FOLDER = "work in a folder that can be written"


def fill(options: Options, rows: list[LadderRow], folder: Path, work: Path) -> tuple[int, dict[Node, UserError]]:
    """Make the rows that are not there yet, seed by seed; gives how many are left, and which steps failed.

    Everything that can be known before the first step is found out before anything is written.

    Raises:
        UserError: exit 2 for flags or a GPU that this machine or ladder has not, exit 4 for the pictures, 6, 7.
    """
    hardware = record.hardware(options.machine.device, _threads(options))
    for path in (folder / "ladder.json", work / "s1" / "nin.json"):
        check_writable(path, WRITABLE_FOLDER)
    now = fingerprint.of(options)
    deadline = time.monotonic() + 60 * options.minutes if options.minutes else math.inf
    with _locked(work):
        begun = (folder.glob("*-s*.json"), work.glob("s*/*.json"), work.glob("s*/*/state.pth"))
        said = fingerprint.compare_or_write(folder / "ladder.json", now, any(any(found) for found in begun))
        filling = _Filling(options, folder, said)
        filling.plan(rows, work)
        runner = Runner(lambda node: command(options, node), options.jobs, deadline, hardware)
        while filling.wanted and not runner.failed:  # once more for rows that went stale on the way
            nodes = dict.fromkeys(step for node in filling.wanted for step in node.chain)
            filling.catch_up(nodes)  # with an earlier run that was stopped before it wrote a row
            if not runner.run(list(nodes), filling.ended):
                print("the time is over", file=sys.stderr)
                break
            filling.catch_up(nodes)  # with rows that were lost together with a parent
    return sum(len(found) for found in filling.wanted.values()), runner.failed


class _Filling:
    """The rows that are still wanted, by their last step; `said` is what ladder.json says once one is added."""

    def __init__(self, options: Options, folder: Path, said: dict[str, Any]) -> None:
        self.options, self.folder, self.said = options, folder, said
        self.wanted: dict[Node, list[LadderRow]] = {}

    def _path(self, row: LadderRow, seed: int) -> Path:
        return self.folder / f"{row.name}-s{seed}.json"

    def plan(self, rows: list[LadderRow], work: Path) -> None:
        """Want the rows that have no result, and those that have gone stale, whoever asked for them."""
        for seed in range(1, self.options.seeds + 1):
            for row in ladder.of(self.options.arch):
                path = self._path(row, seed)
                there = result.load(path) if path.exists() else None
                if isinstance(there, Stale) or (there is None and row in rows):
                    self.wanted.setdefault(Node(work / f"s{seed}", seed, row.step), []).append(row)

    def catch_up(self, nodes: Iterable[Node]) -> None:
        for node in nodes:
            if node.ended():
                self.ended(node)

    def ended(self, node: Node) -> None:
        """Write the rows that a step completes; those that hang on another file of this step have gone stale."""
        self._outdate(node)
        for row in self.wanted.pop(node, ()):
            known = record.of(row, node, lambda n: command(self.options, n), self.options.arch)
            fingerprint.write(self.folder / "ladder.json", self.said)
            result.save(self._path(row, node.seed), known)
            shown = f"{known.accuracy:.2f} %" if isinstance(known, Done) else known.status
            print(f"{row.name}, seed {node.seed}: {shown}", file=sys.stderr, flush=True)

    def _outdate(self, node: Node) -> None:
        """Rows of one seed are compared with each other, so they must all be of the same files."""
        note, stale = node.ended(), []
        for row in ladder.of(self.options.arch):
            path = self._path(row, node.seed)
            if steps.STEPS[node.step] not in steps.chain(row.step) or not path.exists():
                continue
            there = result.load(path)
            if not isinstance(there, Stale) and there.made_from.get(node.step) != (note and note.sha256):
                result.save(path, Stale(row=row.name, label=row.label, seed=node.seed))
                self.wanted.setdefault(Node(node.folder, node.seed, row.step), []).append(row)
                stale.append(row.name)
        if stale:
            notice(
                f"{node.step}, seed {node.seed}, was made anew and came out differently; "
                f"rows that hang on it are run again: {', '.join(stale)}"
            )


@contextmanager
def _locked(work: Path) -> Iterator[None]:
    """One ladder at a time in a work folder."""
    work.mkdir(parents=True, exist_ok=True)
    try:
        lock = Lock(work)
    except UserError as fault:
        hint = "wait for it; its --jobs runs several rows at once" if fault.code == LOCKED else WRITABLE_FOLDER
        raise UserError(str(fault), hint, fault.code) from fault
    try:
        yield
    finally:
        lock.release()


def _threads(options: Options) -> int:
    """Of each step: OMP_NUM_THREADS is said of one process, --threads of all that run at once."""
    total = torch.get_num_threads()
    return total if "OMP_NUM_THREADS" in os.environ and not options.machine.threads else max(1, total // options.jobs)


def command(options: Options, node: Node) -> list[str]:
    """The words after `python -m`, as a user would type them."""
    step = steps.STEPS[node.step]
    words = step.words({parent.step: str(parent.model) for parent in node.parents}, options.arch)
    words += ["--dataset", options.dataset, "--data", str(options.data.root)]
    words += ["--seed", str(node.seed), "--device", options.machine.device]
    words += ["--save", str(node.model), "--eval_batch_size", str(options.data.eval_batch_size)]
    # a checkpoint holds its command: the default says nothing, so files stay the same
    if options.data.num_workers != 2:
        words += ["--num_workers", str(options.data.num_workers)]
    if options.data.skip_bad:
        words.append("--skip_bad")
    if options.data.image_size:
        words += ["--image_size", str(options.data.image_size)]
    if options.data.crop:
        words += ["--crop", options.data.crop]
    if options.data.val:
        words += ["--val", str(options.data.val)]
    if options.data.flip is not None:
        words.append("--flip" if options.data.flip else "--no-flip")
    if step.trains:
        words += ["--run_dir", str(node.model.with_suffix(""))]
        if epochs := step.epochs(options.epochs):
            words += ["--epochs", str(epochs)]
        if options.original:
            words += ["--recipe", "seed"]
        words += ["--precision", options.precision]
    return words
