"""The runner of the ladder's steps: several at once, parents first, until all are done or the time is up."""

from __future__ import annotations

import ctypes
import json
import os
import shlex
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import IO

from engine.checkpoint.provenance import versions
from engine.cli.naming import recorded
from engine.errors import DIVERGED, LOCKED, UserError
from engine.system.files import sha256
from model_compression import HOME
from scripts.ladder import notes, steps
from scripts.ladder.notes import Hardware, Note, Spent

STOP_SECONDS = 60  # that a step may take to save its state once the time is up
KEEP_SECONDS = 10  # between records of the time that running steps have taken
CODE = ("engine", "models", "prune", "quant", "bn_merge", "scripts", "setup.py", "model_compression.py")
"""The code that can change a figure."""

PROGRAM = (sys.executable, str(HOME / "model_compression.py"))  # runs a step independently of the working folder
NOT_SAID = Hardware()
_PR_SET_PDEATHSIG = 1  # linux/prctl.h
_libc = ctypes.CDLL(None) if sys.platform.startswith("linux") else None


@dataclass(frozen=True)
class Node:
    """One step with one seed. Its files are in `folder`."""

    folder: Path
    seed: int
    step: str

    @property
    def model(self) -> Path:
        return self.folder / f"{self.step}.pth"

    @property
    def note(self) -> Path:
        """The note of an ended step. It is written last, so its presence means that the step has ended."""
        return self.folder / f"{self.step}.json"

    @property
    def parents(self) -> list[Node]:
        parent = steps.STEPS[self.step].parent
        return [Node(self.folder, self.seed, parent)] if parent else []

    @property
    def chain(self) -> list[Node]:
        """This step and all steps before it, in order."""
        return [Node(self.folder, self.seed, step.name) for step in steps.chain(self.step)]

    @property
    def spent(self) -> Path:
        """The file with the time that an unfinished step has taken."""
        return self.folder / f"{self.step}.spent"

    def ended(self) -> Note | None:
        """Return the note if the step has ended and neither its file nor its parents' files have changed, else None."""
        if not self.note.exists():
            return None
        note = Note.load(self.note)
        read = {parent.model: (note.parents or {}).get(parent.step) for parent in self.parents}
        if note.status == "done":
            read[self.model] = note.sha256
        elif note.diverged_in != self.step:  # an earlier step diverged: valid while the parent's note says so
            if not any(found and found.diverged_in == note.diverged_in for found in map(Node.ended, self.parents)):
                return None
            read = {}
        elif note.parents is None:  # written by an older version
            read = {}
        if not all(path.exists() and sha256(path) == known for path, known in read.items()):
            return None
        return note


@dataclass
class _Job:
    process: subprocess.Popen
    output: IO[bytes]
    started: float
    before: float
    threads: int | None = None

    def seconds(self) -> float:
        """Return the step's time so far, with its earlier, interrupted runs."""
        return self.before + time.monotonic() - self.started


class Runner:
    """A runner of nodes, each in a process of its own.

    Args:
        command: returns the words of a node's command.
        jobs: number of steps to run at once.
        deadline: in seconds of time.monotonic. After it no step starts, and running steps must save and stop.
        hardware: the hardware of the steps, for their notes.
    """

    def __init__(
        self,
        command: Callable[[Node], list[str]],
        jobs: int,
        deadline: float,
        hardware: Hardware = NOT_SAID,
    ) -> None:
        self.command, self.jobs, self.deadline, self.hardware = command, jobs, deadline, hardware
        self.failed: dict[Node, UserError] = {}
        self._patience = time.monotonic() + STOP_SECONDS  # until then, steps of a killed ladder may still be saving

    def run(self, nodes: list[Node], ended: Callable[[Node], None]) -> bool:
        """Run the nodes that have not ended, and call `ended` after each. Return False if the time was up first.

        A step that fails does not end the run: `failed` holds its error, also for the steps that need its file.

        Raises:
            UserError: exit 2 if a step waits for a file that is gone; exit 3 for a damaged note; exit 6 if a note cannot
                be written; and as `ended`.
        """
        waiting = [node for node in nodes if not node.ended()]
        running: dict[Node, _Job] = {}
        kept = time.monotonic()
        try:
            while waiting or running:
                for node in [node for node, job in running.items() if job.process.poll() is not None]:
                    if self._settle(node, running.pop(node)):
                        ended(node)
                    elif node not in self.failed:
                        waiting.append(node)
                if time.monotonic() >= kept + KEEP_SECONDS:  # in case of kill -9, which leaves no time to save
                    kept = time.monotonic()
                    for node, job in running.items():
                        self._keep(node, job)
                if time.monotonic() >= self.deadline:
                    return False
                free = self.jobs - len(running)
                for node in self._ready(waiting)[:free] if free else ():
                    waiting.remove(node)
                    running[node] = self._start(node)
                if waiting and not running:
                    raise UserError(f"{waiting[0].step} waits for a file that is gone", "repeat the command")
                time.sleep(0.1)
        finally:
            self._stop(running)
        return True

    def _ready(self, waiting: list[Node]) -> list[Node]:
        """Return the nodes whose parents are done. Remove nodes whose parent diverged or failed from `waiting`."""
        ready = []
        for node in list(waiting):
            known = [parent.ended() for parent in node.parents]
            lost = next((note for note in known if note and note.status == "diverged"), None)
            if lost:
                notes.save(node.note, notes.to_json(Note("diverged", lost.diverged_in)))
                waiting.remove(node)
            elif any(parent in self.failed for parent in node.parents):
                self.failed[node] = self.failed[next(p for p in node.parents if p in self.failed)]
                waiting.remove(node)
            elif all(known):
                ready.append(node)
        return ready

    def _start(self, node: Node) -> _Job:
        words = [*self.command(node), "--json"]
        if "--run_dir" in words:
            words.append("--resume")
        node.folder.mkdir(parents=True, exist_ok=True)
        environment, earlier = dict(os.environ), Spent.load(node.spent, self.hardware.threads)
        if earlier.threads:  # otherwise each process would start one thread per core
            environment["OMP_NUM_THREADS"] = str(earlier.threads)
        output = (node.folder / f"{node.step}.out").open("w+b")
        with (node.folder / f"{node.step}.log").open("ab") as log:
            log.write(f"$ {shlex.join(words)}\n".encode())
            log.flush()
            print(f"{node.step}, seed {node.seed}: running, see {log.name}", file=sys.stderr, flush=True)
            process = subprocess.Popen(
                [*PROGRAM, *words], stdout=output, stderr=log, env=environment, preexec_fn=_end_with_parent
            )
        job = _Job(process, output, time.monotonic(), earlier.seconds, earlier.threads)
        self._keep(node, job)
        return job

    def _settle(self, node: Node, job: _Job) -> bool:
        """Write the note of an ended step, or report its failure. Return False if it failed or must be tried again."""
        job.output.seek(0)
        text, code = job.output.read().decode(), job.process.returncode
        job.output.close()
        Path(job.output.name).unlink()
        if code == LOCKED and time.monotonic() < self._patience:
            return False
        if code not in (0, DIVERGED):
            self.failed[node] = fault = _fault(node, code)
            print(f"failed: {node.step}, seed {node.seed}, exit code {code}: {fault}", file=sys.stderr, flush=True)
            return False
        note = Note(
            "done" if code == 0 else "diverged",
            diverged_in=None if code == 0 else node.step,
            parents={parent.step: sha256(parent.model) for parent in node.parents},
            seconds=round(job.seconds(), 1),
            version={**versions(), "commit": _commit()},
            command=plain(self.command(node)),
            device=self.hardware.device,
            machine=self.hardware.machine,
            threads=job.threads or self.hardware.threads,
        )
        if code == 0:
            note = replace(note, result=json.loads(text), sha256=sha256(node.model))
        notes.save(node.note, notes.to_json(note))
        node.spent.unlink(missing_ok=True)
        return True

    def _stop(self, running: dict[Node, _Job]) -> None:
        """Ask running steps to save their state, from which the next run resumes, and wait for them."""
        for job in running.values():
            job.process.terminate()
        for node, job in running.items():
            try:
                job.process.wait(STOP_SECONDS)
            except subprocess.TimeoutExpired:
                job.process.kill()
                job.process.wait()
            job.output.close()
            self._keep(node, job)

    def _keep(self, node: Node, job: _Job) -> None:
        """Record the time that an unfinished step has taken, for the next run."""
        notes.save(node.spent, asdict(Spent(job.seconds(), job.threads)))


def plain(words: list[str]) -> str:
    """Return a command line without paths of this machine: absolute paths are cut to their last part."""
    return recorded(shlex.join(Path(word).name if word.startswith("/") else word for word in words))


def _end_with_parent() -> None:
    """In the new process, ask Linux to send SIGTERM if the ladder is killed, so that the step saves and stops."""
    if _libc:
        _libc.prctl(_PR_SET_PDEATHSIG, signal.SIGTERM)


def _fault(node: Node, code: int) -> UserError:
    """Return the error of a failed step from the end of its log: its error and hint, or else its last line."""
    log = node.folder / f"{node.step}.log"
    lines = log.read_text(errors="replace").splitlines()
    begun = max((number for number, line in enumerate(lines) if line.startswith("$ ")), default=-1)
    lines = lines[begun + 1 :]  # skip the errors of earlier runs
    errors = [number for number, line in enumerate(lines) if line.startswith("error: ")]
    if errors and lines[errors[-1] + 1 :][:1] and lines[errors[-1] + 1].startswith("hint: "):
        error, hint = lines[errors[-1] :][:2]
        return UserError(error.removeprefix("error: "), hint.removeprefix("hint: "), code)
    return UserError("; ".join(lines[-1:]), f"see {log}", code)


def _commit() -> str | None:
    """Return the commit of the code, with -dirty appended if code was changed; None outside a clone."""
    home = Path(__file__).parents[2]
    try:
        said = subprocess.run(
            ["git", "describe", "--always", "--abbrev=12"], cwd=home, capture_output=True, text=True
        ).stdout.strip()
        changed = subprocess.run(["git", "diff", "--quiet", "HEAD", "--", *CODE], cwd=home, capture_output=True)
    except OSError:
        return None
    return f"{said}-dirty" if said and changed.returncode == 1 else said or None
