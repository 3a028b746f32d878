"""The result of one row with one seed, as its JSON file holds it: done, diverged, or to be run again.

Fields stand in the order of the keys on disk. A field whose default is None is missing in files of older versions.
"""

from __future__ import annotations

from dataclasses import MISSING, dataclass, fields
from pathlib import Path
from typing import Any, Literal

from engine.errors import BAD_CHECKPOINT, UserError
from engine.system.files import write_json
from scripts.ladder import notes


@dataclass(frozen=True, kw_only=True)
class Done:
    """A row that was run to its end.

    Args:
        commands: those of all steps on the way, in order.
        seconds, version, precision, sha256, threads: of each step on the way, by its name.
        pictures, judged_on: how many pictures the accuracy is of, and of which part ("test", "val").
        accuracy: percent, of the last epoch.
        epochs: of each training stage, "10+6".
        cfg, cfg_before: widths of the network, and those before it was pruned, if it was.
        size_bits: bits of every stored tensor; `bytes_counted` is the same in whole bytes.
        curve: what the last stage measured after each epoch; empty where it trained nothing.
        device, machine: what the steps ran on, each named once, joined by "; ".
    """

    row: str
    label: str
    seed: int
    status: Literal["done"] = "done"
    commands: list[str] | None = None
    seconds: dict[str, float | None] | None = None
    version: dict[str, dict[str, Any] | None] | None = None
    dataset: str
    pictures: int
    judged_on: str
    accuracy: float
    epochs: str
    precision: dict[str, str] | None = None
    arch: str | None = None
    cfg: list[int]
    cfg_before: list[int] | None
    macs: int
    params: int
    size_bits: int
    bytes_counted: int
    sha256: dict[str, str] | None = None
    curve: list[dict[str, float]]
    device: str | None = None
    machine: str
    threads: dict[str, int | None] | None = None

    @property
    def made_from(self) -> dict[str, str]:
        """`sha256`, empty where an older file does not tell it."""
        return self.sha256 or {}


@dataclass(frozen=True, kw_only=True)
class Diverged:
    """A row with no accuracy: `diverged_in`, its last step or one before it, ended in numbers that are not finite."""

    row: str
    label: str | None = None
    seed: int
    status: Literal["diverged"] = "diverged"
    commands: list[str] | None = None
    device: str | None = None
    machine: str | None = None
    threads: dict[str, int | None] | None = None
    seconds: dict[str, float | None] | None = None
    version: dict[str, dict[str, Any] | None] | None = None
    sha256: dict[str, str] | None = None
    diverged_in: str

    @property
    def made_from(self) -> dict[str, str]:
        return self.sha256 or {}


@dataclass(frozen=True, kw_only=True)
class Stale:
    """A row whose file of some step has been made anew and came out differently: it has to be run again."""

    row: str
    label: str | None = None
    seed: int
    status: Literal["stale"] = "stale"

    @property
    def made_from(self) -> dict[str, str]:
        """Nothing is known of the files that it was made from."""
        return {}


Result = Done | Diverged | Stale
_KINDS: dict[str, type[Done] | type[Diverged] | type[Stale]] = {"done": Done, "diverged": Diverged, "stale": Stale}


def load(path: Path) -> Result:
    """Read the result of a row.

    Raises:
        UserError: exit 3 naming the file if it is damaged.
    """
    status = notes.load(path, "row", "seed", "status")["status"]
    if status not in _KINDS:
        raise UserError(f"{path} is damaged: no status {status!r}", "delete it: its row is made again", BAD_CHECKPOINT)
    kind = _KINDS[status]
    return notes.from_json(kind, notes.load(path, *(f.name for f in fields(kind) if f.default is MISSING)))


def save(path: Path, result: Result) -> None:
    write_json(path, notes.to_json(result))
