"""The result of one row with one seed, as its JSON file holds it: done, diverged, or stale.

Fields are in the order of the keys in the file. Files of older versions may lack the fields with default None.
"""

from __future__ import annotations

from dataclasses import MISSING, dataclass, fields
from pathlib import Path
from typing import Any, Literal

from engine.errors import BAD_CHECKPOINT, UserError
from engine.tasks import score as scores
from engine.tasks.score import Score
from scripts.ladder import notes


@dataclass(frozen=True, kw_only=True)
class Done:
    """A row that was run to its end.

    Args:
        commands: the commands of all its steps, in order.
        seconds, version, precision, sha256, threads: of each of its steps, by the step's name.
        pictures, judged_on: number of pictures that the accuracy was measured on, and their part ("test" or "val").
        task: what the network is for, as DataInfo calls it; None for classification.
        accuracy: in percent, of the last epoch; a detector's mAP. The file calls it as the task does.
        epochs: of each training stage, "10+6".
        cfg, cfg_before: widths of the network, and its widths before pruning if it was pruned.
        size_bits: bits of all stored tensors; `bytes_counted` is the same in whole bytes.
        curve: metrics of the last stage after each epoch; empty if it trained nothing.
        device, machine: hardware of the steps, each named once, joined by "; ".
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
    task: str | None = None
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
    def score(self) -> Score:
        """The name and unit of the accuracy."""
        return scores.of(self.task)

    @property
    def made_from(self) -> dict[str, str]:
        """The hashes of the steps' files, by step; empty for older files that lack them."""
        return self.sha256 or {}


@dataclass(frozen=True, kw_only=True)
class Diverged:
    """A row without accuracy: the step `diverged_in`, its last or an earlier one, ended in non-finite numbers."""

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
    """A row to be run again: the file of one of its steps was made again and differs."""

    row: str
    label: str | None = None
    seed: int
    status: Literal["stale"] = "stale"

    @property
    def made_from(self) -> dict[str, str]:
        """Empty: a stale row records no files."""
        return {}


Result = Done | Diverged | Stale
_KINDS: dict[str, type[Done] | type[Diverged] | type[Stale]] = {"done": Done, "diverged": Diverged, "stale": Stale}


def load(path: Path) -> Result:
    """Read the result of a row.

    Raises:
        UserError: exit 3 naming the file if it is damaged.
    """
    content = notes.load(path, "row", "seed", "status")
    status, task = content["status"], content.get("task")
    again = "delete it; its row runs again"
    if status not in _KINDS:
        raise UserError(f"{path} is damaged: no status {status!r}", again, BAD_CHECKPOINT)
    if task is not None and task not in scores.TASKS:
        raise UserError(f"{path} is damaged: no task {task!r}", again, BAD_CHECKPOINT)
    kind, score = _KINDS[status], scores.of(task).name
    names = (field.name for field in fields(kind) if field.default is MISSING)
    content = notes.load(path, *(score if name == "accuracy" else name for name in names))
    return notes.from_json(kind, {"accuracy" if key == score else key: value for key, value in content.items()})


def save(path: Path, result: Result) -> None:
    """Write the result of a row. The key of its accuracy is the name of its score: "accuracy" or "mAP"."""
    content = notes.to_json(result)
    if isinstance(result, Done):
        content = {result.score.name if key == "accuracy" else key: value for key, value in content.items()}
    notes.save(path, content)
