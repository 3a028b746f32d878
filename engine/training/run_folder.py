"""The run folder: what a training run was told, what it runs on, how it went, and how to go on from there."""

from __future__ import annotations

import csv
import io
import itertools
import json
import os
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import asdict
from pathlib import Path
from typing import Any

from engine.checkpoint import archive
from engine.checkpoint.provenance import versions
from engine.errors import BAD_CHECKPOINT, CANNOT_WRITE, UserError
from engine.system.files import check_writable, sha256, sweep, write_bytes, write_json, write_text
from engine.system.lock import Lock
from engine.system.said import notice, warning
from engine.tasks.base import Task
from engine.training import begun, curve
from engine.training.progress import EpochMetrics, FitConfig, Progress

WANTED = {"identity", "rows", "model", "optimizer", "schedule", "rng", *Progress.COUNTS}
WITHOUT_RESUME = "start again without --resume"


class RunFolder:
    """Holds flags.json, versions.json, metrics.csv, curve.png (with matplotlib), state.pth and result.json.

    One run at a time: the folder is locked until the process ends, however it ends. state.prev.pth is the save
    before the last: should a disk damage state.pth, a run goes on from there.

    Raises:
        UserError: exit 6 if it cannot be written, exit 7 if another run is in it.
    """

    FILES = (
        "flags.json",
        "versions.json",
        "metrics.csv",
        "curve.png",
        "trace.json",
        "state.pth",
        "state.prev.pth",
        "result.json",
    )

    def __init__(self, path: Path) -> None:
        self.path = path
        check_writable(path / "flags.json", _remedy(path))
        path.mkdir(parents=True, exist_ok=True)
        self._lock = Lock(path)
        for name in self.FILES:
            sweep(path / name)

    def owns(self, path: Path) -> bool:
        """Whether `path` is one of the files that are kept here."""
        return path.resolve() in [(self.path / name).resolve() for name in self.FILES]

    def close(self) -> None:
        """Let another run in."""
        self._lock.release()

    @property
    def state_path(self) -> Path:
        return self.path / "state.pth"

    @property
    def previous_path(self) -> Path:
        return self.path / "state.prev.pth"

    def forget(self, save: Path) -> None:
        """Clear the folder for a new run so that --resume cannot pick up the old one.

        state.pth goes after state.prev.pth, which would stand in for it, and before result.json, which says it is complete.
        An unfinished run's state is renamed to state.abandoned[.N].pth; the new name is printed.

        Args:
            save: the file that will come out.

        Raises:
            UserError: exit 6.
        """
        if (other := self._result().get("path")) not in (None, str(save)):
            notice(
                f"{self.path} was of {other}; its metrics and state make room for those of {save} (--run_dir DIR keeps both)"
            )
        if self.state_path.exists() and not (self.path / "result.json").exists():
            later = (f"state.abandoned.{number}.pth" for number in itertools.count(2))
            names = itertools.chain(["state.abandoned.pth"], later)
            aside = next(path for path in map(self.path.joinpath, names) if not path.exists())
            with _changing(aside):
                os.replace(self.state_path, aside)
            line = begun.going_on(self.path, aside) or f"--resume {aside}"
            notice(f"{self.path} held an unfinished run; to go on with it: {line}")
        for path in (self.previous_path, self.state_path, self.path / "result.json", self.path / "curve.png"):
            with _changing(path):
                path.unlink(missing_ok=True)

    def describe(
        self, flags: dict[str, Any], config: FitConfig, rows: list[EpochMetrics], words: Sequence[str] = ()
    ) -> None:
        """Before the first step: the flags as given, the settings as resolved, the metrics that the state vouches for.

        Args:
            words: the command line behind `python -m`, for hints.
        """
        with _changing(self.path / "result.json"):
            (self.path / "result.json").unlink(missing_ok=True)  # it is of the run before
        write_json(
            self.path / "flags.json",
            {"flags": flags, "resolved": asdict(config), "command": list(words)},
            _remedy(self.path),
        )
        write_json(self.path / "versions.json", versions(), _remedy(self.path))
        self.write_metrics(rows)

    def keep(self, progress: Progress, fingerprint: dict[str, Any]) -> None:
        """Save where a run is: metrics first, then the state, which is what a resumed run believes.

        Args:
            fingerprint: what has to be the same for a run to go on from there; `identity` in the file.
        """
        if not progress.step:
            self.write_metrics(progress.rows)
        state = archive.to_bytes({"identity": fingerprint, **progress.state_dict()})
        write_bytes(self.state_path, state, self.previous_path, _remedy(self.path))

    def write_metrics(self, rows: list[EpochMetrics]) -> None:
        """metrics.csv: one line an epoch; no file where there are none."""
        if not rows:
            (self.path / "metrics.csv").unlink(missing_ok=True)
            return
        text = io.StringIO()
        writer = csv.DictWriter(text, list(dict.fromkeys(key for row in rows for key in row)), lineterminator="\n")
        writer.writeheader()
        writer.writerows(rows)
        write_text(self.path / "metrics.csv", text.getvalue(), _remedy(self.path))

    def write_result(self, path: Path) -> None:
        """The very last: which file came out."""
        write_json(self.path / "result.json", {"path": str(path), "sha256": sha256(path)}, _remedy(self.path))

    def _result(self) -> dict[str, Any]:
        try:
            recorded = json.loads((self.path / "result.json").read_bytes())
        except (OSError, ValueError):
            return {}
        return recorded if isinstance(recorded, dict) else {}

    def has_result(self, path: Path) -> bool:
        """Whether `path` is still the file that came out of this run."""
        try:
            return self._result().get("sha256") == sha256(path)
        except OSError:
            return False

    def state(self, path: Path, fingerprint: dict[str, Any]) -> dict[str, Any]:
        """Read a state to go on from; where this folder's own is damaged, the save before it, with a warning.

        The save before replaces the damaged state; otherwise the next save would keep the damaged file as its backup.

        Raises:
            UserError: exit 3 for a damaged file, exit 2 if it belongs to a run with other flags, named one by one;
                exit 6 where the damaged one cannot be replaced.
        """
        try:
            return _read(path, fingerprint, path == self.state_path)
        except UserError as fault:
            if path != self.state_path or fault.code != BAD_CHECKPOINT or not self.previous_path.exists():
                raise
            try:
                state = _read(self.previous_path, fingerprint, own=True)
            except UserError:
                raise fault from None  # neither helps
            warning(f"{fault}; going on from {self.previous_path}, the save before it")
            with _changing(self.state_path):
                os.replace(self.previous_path, self.state_path)
            return state

    def draw(self, rows: list[EpochMetrics], task: Task) -> None:
        """Learning curve; without matplotlib there is none, and metrics.csv has the numbers."""
        picture = curve.picture(rows, task)
        if picture:
            write_bytes(self.path / "curve.png", picture, remedy=_remedy(self.path))


class Following(RunFolder):
    """That of a rank which is not the first: it reads what the first one writes."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def close(self) -> None: ...

    def forget(self, save: Path) -> None: ...

    def describe(self, *_: Any) -> None: ...

    def keep(self, *_: Any) -> None: ...

    def write_result(self, path: Path) -> None: ...

    def draw(self, *_: Any) -> None: ...


def _remedy(folder: Path) -> str:
    """What to do where a run folder cannot be written; that nothing is lost is said where there is something to go on from."""
    saved = any(os.path.exists(folder / name) for name in ("state.pth", "state.prev.pth"))
    rest = "; what was saved before is whole, and --resume goes on from it"
    return f"name another folder with --run_dir{rest if saved else ''}"


@contextmanager
def _changing(path: Path) -> Iterator[None]:
    try:
        yield
    except OSError as fault:
        raise UserError(f"cannot write {path}: {fault.strerror}", _remedy(path.parent), CANNOT_WRITE) from fault


def _read(path: Path, fingerprint: dict[str, Any], own: bool) -> dict[str, Any]:
    try:
        state, checked, *_ = archive.load(path)
    except UserError as fault:  # what storage says of other files, to save them anew, is no help with this one
        raise UserError(str(fault), WITHOUT_RESUME if os.path.exists(path) else fault.hint, fault.code) from fault
    if not checked or not isinstance(state, dict) or not state.keys() >= WANTED:
        raise archive.bad_file(path, "not the state of a run", WITHOUT_RESUME)
    differing = list(_differences(state["identity"], fingerprint))
    if any(
        text.startswith("data_label ") for text in differing
    ):  # another data set: its mean and the like go without saying
        differing = [text for text in differing if not text.startswith("data_") or text.startswith("data_label ")]
    if differing:
        raise begun.other_run(path, differing, own)
    return state


def _differences(was: dict[str, Any], now: dict[str, Any], prefix: str = "") -> Iterator[str]:
    """`lr 0.1 -> 0.2`, `spec.weight.bits 8 -> 4`: each setting that is not the same."""
    for key in {**was, **now}:
        old, new = was.get(key), now.get(key)
        if isinstance(old, dict) and isinstance(new, dict):
            yield from _differences(old, new, f"{prefix}{key}.")
        elif old != new:
            yield f"{prefix}{key} {old} -> {new}"
