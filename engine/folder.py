"""The run folder: what a training run was told, what it runs on, how it went, and how to go on from there."""

from __future__ import annotations

import csv
import fcntl
import io
import os
import socket
from dataclasses import asdict
from pathlib import Path
from typing import Any

from engine import checkpoint, storage
from engine.errors import LOCKED, UserError
from engine.files import check_writable, write_bytes, write_json, write_text
from engine.loop import FitConfig, Progress, Row


class RunFolder:
    """Holds flags.json, versions.json, metrics.csv, curve.png (with matplotlib) and state.pth.

    One run at a time: the folder is locked until the process ends, however it ends.

    Raises:
        UserError: exit 6 if it cannot be written, exit 7 if another run is in it.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        check_writable(path / "flags.json")
        path.mkdir(parents=True, exist_ok=True)
        self._lock = (path / ".lock").open("a+")
        try:
            fcntl.flock(self._lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError as fault:
            self._lock.seek(0)
            raise UserError(
                f"{path} is in use by {self._lock.read().strip() or 'another run'}",
                "wait for it, or name another folder with --run_dir",
                LOCKED,
            ) from fault
        ours = ("state.pth", "metrics.csv", "flags.json", "versions.json", "curve.png")
        for stale in (
            file for name in ours for file in path.glob(f".{name}.*.tmp")
        ):  # of a process that was killed while it wrote; the lock makes them ours
            stale.unlink(missing_ok=True)
        self._lock.truncate(0)
        self._lock.write(f"process {os.getpid()} on {socket.gethostname()}\n")
        self._lock.flush()

    def close(self) -> None:
        """Let another run in."""
        self._lock.close()

    @property
    def state_path(self) -> Path:
        return self.path / "state.pth"

    def describe(self, flags: dict[str, Any], config: FitConfig) -> None:
        """Write the flags as given and the settings as resolved."""
        write_json(self.path / "flags.json", {"flags": flags, "resolved": asdict(config)})
        write_json(self.path / "versions.json", checkpoint.versions())

    def keep(self, progress: Progress, identity: dict[str, Any]) -> None:
        """After each epoch: metrics first, then the state, which is what a resumed run believes."""
        self.write_metrics(progress.rows)
        storage.save(self.state_path, {"identity": identity, **progress.state_dict()})

    def write_metrics(self, rows: list[Row]) -> None:
        """metrics.csv: one line an epoch."""
        text = io.StringIO()
        writer = csv.DictWriter(text, list(rows[0]), lineterminator="\n")
        writer.writeheader()
        writer.writerows(rows)
        write_text(self.path / "metrics.csv", text.getvalue())

    def state(self, path: Path, identity: dict[str, Any]) -> dict[str, Any]:
        """Read a state to go on from.

        Raises:
            UserError: exit 3 for a damaged file, exit 2 if it belongs to a run with other flags, named one by one.
        """
        state, checked = storage.load(path)
        wanted = {"identity", "epoch", "rows", "model", "optimizer", "schedule", "rng"}
        if not checked or not isinstance(state, dict) or not wanted <= state.keys():
            raise storage.bad(path, "not the state of a run", "start again without --resume")
        was = state["identity"]
        differing = [key for key in {**was, **identity} if was.get(key) != identity.get(key)]
        if differing:
            listing = ", ".join(f"{key} {was.get(key)} -> {identity.get(key)}" for key in differing)
            raise UserError(
                f"{path} belongs to a run with other settings: {listing}",
                "repeat the flags of that run, or start anew without --resume",
            )
        return state

    def draw(self, rows: list[Row]) -> None:
        """Learning curve; without matplotlib there is none, and metrics.csv has the numbers."""
        try:
            import matplotlib
        except ModuleNotFoundError:
            return
        matplotlib.use("Agg")
        from matplotlib import pyplot

        figure, axes = pyplot.subplots(1, 2, figsize=(9, 3.2), layout="constrained")
        epochs = [row["epoch"] for row in rows]
        for axis, what, unit in zip(axes, ("loss", "accuracy"), ("cross-entropy", "%"), strict=True):
            for key in rows[0]:
                if key.endswith(what):
                    axis.plot(epochs, [row[key] for row in rows], marker=".", label=key.removesuffix(f"_{what}"))
            axis.set(xlabel="epoch", ylabel=f"{what} ({unit})")
            axis.grid(alpha=0.3)
            axis.legend()
        buffer = io.BytesIO()
        figure.savefig(buffer, dpi=120)
        pyplot.close(figure)
        write_bytes(self.path / "curve.png", buffer.getvalue())
