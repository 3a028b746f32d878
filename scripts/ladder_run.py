"""Run the steps of the ladder: several at once, parents first, until all are done or the time is over."""

from __future__ import annotations

import json
import os
import shlex
import subprocess
import sys
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import IO, Any

from engine.checkpoint import sha256, versions
from engine.errors import DIVERGED, UserError
from engine.files import write_json
from scripts import ladder

STOP_SECONDS = 60  # for a step to save its state once the time is over


@dataclass(frozen=True)
class Node:
    """One step with one seed; its files lie in `folder`."""

    folder: Path
    seed: int
    step: str

    @property
    def model(self) -> Path:
        return self.folder / f"{self.step}.pth"

    @property
    def note(self) -> Path:
        """What is known of the step once it has ended; written last, so its presence means done."""
        return self.folder / f"{self.step}.json"

    @property
    def parents(self) -> list[Node]:
        return [Node(self.folder, self.seed, name) for name in ladder.parents(self.step)]

    def ended(self) -> dict[str, Any] | None:
        """The note, if the step has ended, its file is still the one that it left, and its parents those that it read."""
        if not self.note.exists():
            return None
        note = json.loads(self.note.read_text())
        if note["status"] == "done":
            read = {self.model: note["sha256"], **{p.model: note["parents"][p.step] for p in self.parents}}
            if not all(path.exists() and sha256(path) == known for path, known in read.items()):
                return None
        return note


@dataclass
class _Job:
    process: subprocess.Popen
    output: IO[bytes]
    started: float


class Runner:
    """Runs nodes as commands of their own processes.

    Args:
        command: gives the words of a node's command, without those for its files.
        jobs: how many at once.
        deadline: of time.monotonic; no step starts after it, and running ones are asked to save and stop.
    """

    def __init__(self, command: Callable[[Node], list[str]], jobs: int, deadline: float) -> None:
        self.command, self.jobs, self.deadline = command, jobs, deadline
        self.failed: dict[Node, int] = {}

    def run(self, nodes: list[Node], ended: Callable[[Node], None]) -> bool:
        """Run what has not ended yet, and call `ended` after each; False if the time was over before all was tried."""
        waiting = [node for node in nodes if not node.ended()]
        running: dict[Node, _Job] = {}
        try:
            while waiting or running:
                for node in [node for node, job in running.items() if job.process.poll() is not None]:
                    self._settle(node, running.pop(node))
                    if node not in self.failed:
                        ended(node)
                if time.monotonic() >= self.deadline:
                    return False
                free = self.jobs - len(running)
                for node in self._ready(waiting)[:free] if free else ():
                    waiting.remove(node)
                    running[node] = self._start(node)
                if waiting and not running:
                    raise UserError(f"{waiting[0].step} waits for a file that is gone", "give the same command again")
                time.sleep(0.1)
        finally:
            self._stop(running)
        return True

    def _ready(self, waiting: list[Node]) -> list[Node]:
        """Those whose parents are done; those with a lost parent are taken off the list."""
        ready = []
        for node in list(waiting):
            notes = [parent.ended() for parent in node.parents]
            lost = next((note for note in notes if note and note["status"] == "diverged"), None)
            if lost:
                write_json(node.note, {"status": "diverged", "diverged_in": lost["diverged_in"]})
                waiting.remove(node)
            elif any(parent in self.failed for parent in node.parents):
                self.failed[node] = self.failed[next(p for p in node.parents if p in self.failed)]
                waiting.remove(node)
            elif all(notes):
                ready.append(node)
        return ready

    def _start(self, node: Node) -> _Job:
        words = [*self.command(node), "--json"]
        if "--run_dir" in words:
            words.append("--resume")
        node.folder.mkdir(parents=True, exist_ok=True)
        environment = dict(os.environ)
        if self.jobs > 1:  # else each process would start as many threads as there are cores
            environment.setdefault("OMP_NUM_THREADS", str(max(1, (os.cpu_count() or 1) // self.jobs)))
        output = (node.folder / f"{node.step}.out").open("w+b")
        with (node.folder / f"{node.step}.log").open("ab") as log:
            log.write(f"$ {shlex.join(words)}\n".encode())
            log.flush()
            print(f"{node.step}, seed {node.seed}: running, see {log.name}", file=sys.stderr, flush=True)
            process = subprocess.Popen([sys.executable, "-m", *words], stdout=output, stderr=log, env=environment)
        return _Job(process, output, time.monotonic())

    def _settle(self, node: Node, job: _Job) -> None:
        """Write the note of an ended step, or report its failure."""
        seconds = self._spent(node) + time.monotonic() - job.started
        job.output.seek(0)
        text, code = job.output.read().decode(), job.process.returncode
        job.output.close()
        Path(job.output.name).unlink()
        if code not in (0, DIVERGED):
            lines = (node.folder / f"{node.step}.log").read_text(errors="replace").splitlines()
            said = [line for line in lines if line.startswith(("error:", "hint:"))][-2:] or lines[-3:]
            print(f"failed: {node.step}, seed {node.seed}, exit code {code}: {'; '.join(said)}", file=sys.stderr)
            self.failed[node] = code
            return
        note: dict[str, Any] = {"status": "done"} if code == 0 else {"status": "diverged", "diverged_in": node.step}
        if code == 0:
            parents = {parent.step: sha256(parent.model) for parent in node.parents}
            note |= {"result": json.loads(text), "sha256": sha256(node.model), "parents": parents}
        version = {**versions(), "commit": _commit()}
        write_json(node.note, {**note, "seconds": round(seconds, 1), "version": version})
        self._spent_file(node).unlink(missing_ok=True)

    def _stop(self, running: dict[Node, _Job]) -> None:
        """Ask what still runs to save its state; it goes on from there next time."""
        for job in running.values():
            job.process.terminate()
        for node, job in running.items():
            try:
                job.process.wait(STOP_SECONDS)
            except subprocess.TimeoutExpired:
                job.process.kill()
                job.process.wait()
            job.output.close()
            write_json(self._spent_file(node), self._spent(node) + time.monotonic() - job.started)

    def _spent_file(self, node: Node) -> Path:
        return node.folder / f"{node.step}.spent"

    def _spent(self, node: Node) -> float:
        """Seconds of earlier, interrupted runs of a step."""
        path = self._spent_file(node)
        return float(path.read_text()) if path.exists() else 0.0


def _commit() -> str | None:
    """The commit of the code, with -dirty behind it where files were changed; None outside a clone."""
    here = Path(__file__).parent
    try:
        done = subprocess.run(
            ["git", "describe", "--always", "--dirty", "--abbrev=12"], cwd=here, capture_output=True, text=True
        )
    except OSError:
        return None
    return done.stdout.strip() or None
