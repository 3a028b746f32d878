"""The run folder: a run's flags, versions, metrics and state."""

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
from engine.cli.options import STATES
from engine.errors import BAD_CHECKPOINT, CANNOT_WRITE, UserError
from engine.system.files import check_writable, sha256, sweep, write_bytes, write_json, write_text
from engine.system.lock import Lock
from engine.system.messages import notice, warning
from engine.tasks.base import Task
from engine.training import curve, flags_file, resuming
from engine.training.progress import EpochMetrics, FitConfig, Progress

WANTED = {"identity", "rows", "model", "optimizer", "schedule", "rng", *Progress.COUNTS}
WITHOUT_RESUME = "start again without --resume"


class RunFolder:
    """A folder with flags.json, versions.json, metrics.csv, curve.png (needs matplotlib), state.pth and result.json.

    The folder is locked for one run at a time, until the process ends in any way. state.prev.pth is the previous
    save; a run continues from it if state.pth is damaged.

    Raises:
        UserError: if it cannot be written (exit 6); if another run uses it (exit 7).
    """

    FILES = (
        flags_file.NAME,
        "versions.json",
        "metrics.csv",
        "curve.png",
        "trace.json",
        *STATES,
        "result.json",
    )

    def __init__(self, path: Path) -> None:
        self.path = path
        check_writable(path / flags_file.NAME, _remedy(path))
        path.mkdir(parents=True, exist_ok=True)
        self._lock = Lock(path)
        for name in self.FILES:
            sweep(path / name)

    def owns(self, path: Path) -> bool:
        """Return whether `path` is one of this folder's own files."""
        return path.resolve() in [(self.path / name).resolve() for name in self.FILES]

    def close(self) -> None:
        """Release the folder for another run."""
        self._lock.release()

    @property
    def state_path(self) -> Path:
        return self.path / STATES[0]

    @property
    def previous_path(self) -> Path:
        return self.path / STATES[1]

    def forget(self, save: Path) -> None:
        """Clear the folder for a new run so that --resume cannot pick up the old one.

        state.pth is deleted after state.prev.pth, which would replace it, and before result.json, which marks the run
        as complete.
        An unfinished run's state is renamed to state.abandoned[.N].pth; the new name is printed.

        Args:
            save: the file that the new run writes.

        Raises:
            UserError: if the folder cannot be changed (exit 6).
        """
        if (other := self._result().get("path")) not in (None, str(save)):
            notice(
                f"{self.path} held the run of {other}; the run of {save} replaces its metrics and state (--run_dir DIR "
                "keeps both)"
            )
        if self.state_path.exists() and not (self.path / "result.json").exists():
            later = (f"state.abandoned.{number}.pth" for number in itertools.count(2))
            names = itertools.chain(["state.abandoned.pth"], later)
            aside = next(path for path in map(self.path.joinpath, names) if not path.exists())
            with _changing(aside):
                os.replace(self.state_path, aside)
            line = resuming.going_on(self.path, aside) or f"--resume {aside}"
            notice(f"{self.path} held an unfinished run; to continue it: {line}")
        for path in (self.previous_path, self.state_path, self.path / "result.json", self.path / "curve.png"):
            with _changing(path):
                path.unlink(missing_ok=True)

    def describe(
        self, flags: dict[str, Any], config: FitConfig, rows: list[EpochMetrics], words: Sequence[str] = ()
    ) -> None:
        """Write, before the first step, the given flags, the resolved settings and the metrics in the state.

        Args:
            words: the command line after `python -m`, for hints.
        """
        with _changing(self.path / "result.json"):
            (self.path / "result.json").unlink(missing_ok=True)  # the previous run's
        write_json(
            self.path / flags_file.NAME,
            {"flags": flags, "resolved": asdict(config), "command": list(words)},
            _remedy(self.path),
        )
        write_json(self.path / "versions.json", versions(), _remedy(self.path))
        self.write_metrics(rows)

    def keep(self, progress: Progress, fingerprint: dict[str, Any]) -> None:
        """Save a run's metrics, then its state, from which a resumed run starts.

        Args:
            fingerprint: the settings that must be equal to resume; `identity` in the file.
        """
        if not progress.step:
            self.write_metrics(progress.rows)
        state = archive.to_bytes({"identity": fingerprint, **progress.state_dict()})
        write_bytes(self.state_path, state, self.previous_path, _remedy(self.path))

    def write_metrics(self, rows: list[EpochMetrics]) -> None:
        """Write metrics.csv with a row for each epoch, or remove it if there are none."""
        if not rows:
            (self.path / "metrics.csv").unlink(missing_ok=True)
            return
        text = io.StringIO()
        writer = csv.DictWriter(text, list(dict.fromkeys(key for row in rows for key in row)), lineterminator="\n")
        writer.writeheader()
        writer.writerows(rows)
        write_text(self.path / "metrics.csv", text.getvalue(), _remedy(self.path))

    def write_result(self, path: Path) -> None:
        """Record the written file, as the last step of a run."""
        write_json(self.path / "result.json", {"path": str(path), "sha256": sha256(path)}, _remedy(self.path))

    def _result(self) -> dict[str, Any]:
        try:
            recorded = json.loads((self.path / "result.json").read_bytes())
        except (OSError, ValueError):
            return {}
        return recorded if isinstance(recorded, dict) else {}

    def has_result(self, path: Path) -> bool:
        """Return whether `path` is still the file that this run wrote."""
        try:
            return self._result().get("sha256") == sha256(path)
        except OSError:
            return False

    def state(self, path: Path, fingerprint: dict[str, Any]) -> dict[str, Any]:
        """Read a state to resume from; if this folder's own is damaged, read the previous save, with a warning.

        The previous save replaces the damaged state; otherwise the next save would keep the damaged file as its backup.

        Raises:
            UserError: for a damaged file (exit 3); naming each setting that differs from the state's run (exit 2); if
                the damaged state cannot be replaced (exit 6).
        """
        try:
            return _read(path, fingerprint, path == self.state_path)
        except UserError as fault:
            if path != self.state_path or fault.code != BAD_CHECKPOINT or not self.previous_path.exists():
                raise
            try:
                state = _read(self.previous_path, fingerprint, own=True)
            except UserError:
                raise fault from None  # both are damaged
            warning(f"{fault}; continuing from {self.previous_path}, the previous save")
            with _changing(self.state_path):
                os.replace(self.previous_path, self.state_path)
            return state

    def draw(self, rows: list[EpochMetrics], task: Task) -> None:
        """Draw curve.png; without matplotlib, only metrics.csv has the numbers."""
        picture = curve.picture(rows, task)
        if picture:
            write_bytes(self.path / "curve.png", picture, remedy=_remedy(self.path))


class Following(RunFolder):
    """The run folder on every rank but the first, which alone writes; the others only read."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def close(self) -> None: ...

    def forget(self, save: Path) -> None: ...

    def describe(self, *_: Any) -> None: ...

    def keep(self, *_: Any) -> None: ...

    def write_result(self, path: Path) -> None: ...

    def draw(self, *_: Any) -> None: ...


def _remedy(folder: Path) -> str:
    """Return the hint for a run folder that cannot be written; it mentions a saved state if there is one."""
    saved = any(os.path.exists(folder / name) for name in STATES)
    rest = "; the last saved state is intact, and --resume continues from it"
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
    except UserError as fault:  # archive's hint, to save the file again, does not apply to a state
        raise UserError(str(fault), WITHOUT_RESUME if os.path.exists(path) else fault.hint, fault.code) from fault
    if not checked or not isinstance(state, dict) or not state.keys() >= WANTED:
        raise archive.bad_file(path, "not the state of a run", WITHOUT_RESUME)
    differing = list(resuming.differences(state["identity"], fingerprint))
    if any(each.name == "data_label" for each in differing):  # another data set: its label says enough
        differing = [each for each in differing if each.name == "data_label" or not each.name.startswith("data_")]
    if differing:
        raise resuming.other_run(path, differing, own)
    return state
