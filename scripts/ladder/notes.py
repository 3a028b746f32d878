"""The ladder's JSON files, read and checked, and its notes of unfinished and ended steps."""

from __future__ import annotations

import contextlib
import json
from dataclasses import dataclass, fields
from pathlib import Path
from typing import Any, TypeVar

from engine.errors import BAD_CHECKPOINT, UserError
from engine.system.files import write_json

T = TypeVar("T")
WRITABLE_FOLDER = "work in a writable folder"
"""The hint for files of the ladder, whose places no flag names."""


def load(path: Path, *keys: str, hint: str = "delete it; its row runs again") -> dict[str, Any]:
    """Read a JSON file of a row, of a step, or of the ladder itself.

    Raises:
        UserError: exit 3 naming the file if it is damaged or lacks one of `keys`.
    """
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError) as fault:
        raise UserError(f"{path} is damaged: {getattr(fault, 'strerror', fault)}", hint, BAD_CHECKPOINT) from fault
    if not isinstance(content, dict) or not content.keys() >= set(keys):
        raise UserError(f"{path} is damaged: it lacks {', '.join(keys) or 'everything'}", hint, BAD_CHECKPOINT)
    return content


def save(path: Path, content: Any) -> None:
    """Write a JSON file of the ladder.

    Raises:
        UserError: if it cannot be written (exit 6).
    """
    write_json(path, content, WRITABLE_FOLDER)


def to_json(record: Any) -> dict[str, Any]:
    """Return the fields of a dataclass, in order. Fields that are None and have the default None are left out."""
    values = {field: getattr(record, field.name) for field in fields(record)}
    return {field.name: value for field, value in values.items() if value is not None or field.default is not None}


def from_json(kind: type[T], content: dict[str, Any]) -> T:
    """Build a dataclass from the result of `to_json`. Unknown keys are ignored."""
    names = {field.name for field in fields(kind)}  # type: ignore[arg-type]
    return kind(**{key: value for key, value in content.items() if key in names})


@dataclass(frozen=True)
class Hardware:
    """The hardware of steps: `cpu` or `cuda`, the name of the processor or GPU, and the CPU threads of each step."""

    device: str | None = None
    machine: str | None = None
    threads: int | None = None


@dataclass(frozen=True)
class Note:
    """The note of an ended step. Fields that older versions did not record are None.

    Args:
        status: "done" or "diverged".
        diverged_in: the step that diverged: this one or an earlier one.
        parents: the hash of each file that the step read, by the name of its step.
        result: the output of the command with --json.
        sha256: the hash of the step's file.
        seconds: its time, with interrupted runs.
        version: the versions and the commit that it ran with.
    """

    status: str
    diverged_in: str | None = None
    parents: dict[str, str] | None = None
    result: dict[str, Any] | None = None
    sha256: str | None = None
    seconds: float | None = None
    version: dict[str, Any] | None = None
    command: str | None = None
    device: str | None = None
    machine: str | None = None
    threads: int | None = None

    @staticmethod
    def load(path: Path) -> Note:
        """Read the note of a step.

        Raises:
            UserError: exit 3 naming the file if it is damaged.
        """
        hint = "delete it; the step runs again"
        content = load(path, "status", hint=hint)
        if content["status"] == "done":
            load(path, "sha256", "parents", "result", hint=hint)
        return from_json(Note, content)


@dataclass(frozen=True)
class Spent:
    """The time and the CPU threads of an unfinished step. It resumes with the same number of threads."""

    seconds: float
    threads: int | None

    @staticmethod
    def load(path: Path, threads: int | None) -> Spent:
        """Read the record of an interrupted run. A missing or damaged file counts as 0 seconds.

        Args:
            threads: the number for a step that has not begun, or whose file is older than this field.
        """
        with contextlib.suppress(OSError, ValueError):  # a damaged record only loses the time taken so far
            found = json.loads(path.read_text())
            if not isinstance(found, dict):
                return Spent(float(found), threads)
            return Spent(found.get("seconds", 0.0), found.get("threads", threads))
        return Spent(0.0, threads)
