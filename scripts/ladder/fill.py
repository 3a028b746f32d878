"""Filling of the ladder: run the steps that its rows still need, and write a JSON file for each finished row."""

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
from engine.system.messages import notice
from scripts.ladder import fingerprint, record, result, rows as ladder, steps
from scripts.ladder.fitting import fitting
from scripts.ladder.notes import WRITABLE_FOLDER
from scripts.ladder.options import Options
from scripts.ladder.result import Done, Stale
from scripts.ladder.rows import LadderRow
from scripts.ladder.runner import Node, Runner


def fill(options: Options, rows: list[LadderRow], folder: Path, work: Path) -> tuple[int, dict[Node, UserError]]:
    """Run the missing rows, seed by seed.

    All checks that need no step are made before anything is written.

    Returns:
        The number of rows left, and the steps that failed with their errors.

    Raises:
        UserError: exit 2 for a GPU that this machine lacks or flags of another ladder, exit 4 for faulty pictures,
            exit 6 for a folder that cannot be written, exit 7 if another ladder runs in it.
    """
    hardware = record.hardware(options.machine.device, _threads(options))
    for path in (folder / "ladder.json", work / "s1" / "nin.json"):
        check_writable(path, WRITABLE_FOLDER)
    rows = fitting(options, rows)
    now = fingerprint.of(options)
    deadline = time.monotonic() + 60 * options.minutes if options.minutes else math.inf
    with _locked(work):
        begun = (folder.glob("*-s*.json"), work.glob("s*/*.json"), work.glob("s*/*/state.pth"))
        said = fingerprint.compare_or_write(folder / "ladder.json", now, any(any(found) for found in begun))
        filling = _Filling(options, folder, said)
        filling.plan(rows, work)
        runner = Runner(lambda node: command(options, node), options.jobs, deadline, hardware)
        while filling.wanted and not runner.failed:  # repeat for rows that became stale meanwhile
            nodes = dict.fromkeys(step for node in filling.wanted for step in node.chain)
            filling.catch_up(nodes)  # an earlier run may have stopped before it wrote a row
            if not runner.run(list(nodes), filling.ended):
                print("the time is up", file=sys.stderr)
                break
            filling.catch_up(nodes)  # steps after a diverged one get their note without being run
    return sum(len(found) for found in filling.wanted.values()), runner.failed


class _Filling:
    """The rows still wanted, by their last step. `said` is the content of ladder.json once a row is added."""

    def __init__(self, options: Options, folder: Path, said: dict[str, Any]) -> None:
        self.options, self.folder, self.said = options, folder, said
        self.wanted: dict[Node, list[LadderRow]] = {}

    def _path(self, row: LadderRow, seed: int) -> Path:
        return self.folder / f"{row.name}-s{seed}.json"

    def plan(self, rows: list[LadderRow], work: Path) -> None:
        """Want the asked rows that have no result, and all stale rows of the ladder."""
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
        """Write the rows that a step completes, and mark rows made from an earlier file of this step as stale."""
        self._outdate(node)
        for row in self.wanted.pop(node, ()):
            known = record.of(row, node, lambda n: command(self.options, n), self.options.arch)
            fingerprint.write(self.folder / "ladder.json", self.said)
            result.save(self._path(row, node.seed), known)
            shown = known.score.shown(known.accuracy) if isinstance(known, Done) else known.status
            print(f"{row.name}, seed {node.seed}: {shown}", file=sys.stderr, flush=True)

    def _outdate(self, node: Node) -> None:
        """Mark rows made from another file of this step as stale: rows of one seed must share their files."""
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
                f"{node.step}, seed {node.seed}, was made again and its file differs; "
                f"rows that depend on it run again: {', '.join(stale)}"
            )


@contextmanager
def _locked(work: Path) -> Iterator[None]:
    """Hold the lock of a work folder, which allows one ladder at a time.

    Raises:
        UserError: exit 7 if another process holds it, exit 6 if the folder cannot be written.
    """
    work.mkdir(parents=True, exist_ok=True)
    try:
        lock = Lock(work)
    except UserError as fault:
        hint = "wait until it ends; --jobs runs several steps at once" if fault.code == LOCKED else WRITABLE_FOLDER
        raise UserError(str(fault), hint, fault.code) from fault
    try:
        yield
    finally:
        lock.release()


def _threads(options: Options) -> int:
    """Return the CPU threads of each step. OMP_NUM_THREADS is for one process, --threads for all that run at once."""
    total = torch.get_num_threads()
    return total if "OMP_NUM_THREADS" in os.environ and not options.machine.threads else max(1, total // options.jobs)


def command(options: Options, node: Node) -> list[str]:
    """Return the words after `python -m`, as a user would type them."""
    step = steps.STEPS[node.step]
    words = step.words({parent.step: str(parent.model) for parent in node.parents}, options.arch)
    if options.core and not step.parent:
        words += ["--core", options.core]
    words += ["--dataset", options.dataset, "--data", str(options.data.root)]
    words += ["--seed", str(node.seed), "--device", options.machine.device]
    words += ["--save", str(node.model)]
    # a checkpoint stores its command: default values are left out, so that files stay the same
    if options.data.eval_batch_size:
        words += ["--eval_batch_size", str(options.data.eval_batch_size)]
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
