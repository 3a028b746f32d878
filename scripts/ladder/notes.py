"""The ladder's own JSON files, read and checked, and what it notes of a step: under way, and once it has ended."""

from __future__ import annotations

import contextlib
import json
from dataclasses import dataclass, fields
from pathlib import Path
from typing import Any, TypeVar

from engine.errors import BAD_CHECKPOINT, UserError

T = TypeVar("T")


def load(path: Path, *keys: str, hint: str = "delete it: its row is made again") -> dict[str, Any]:
    """A JSON file of the ladder's own: of a row, of a step, or of the ladder itself.

    Raises:
        UserError: exit 3 naming the file if it is damaged or lacks one of `keys`.
    """
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError) as fault:
        raise UserError(f"{path} is damaged: {fault}", hint, BAD_CHECKPOINT) from fault
    if not isinstance(content, dict) or not content.keys() >= set(keys):
        raise UserError(f"{path} is damaged: it lacks {', '.join(keys) or 'everything'}", hint, BAD_CHECKPOINT)
    return content


def to_json(record: Any) -> dict[str, Any]:
    """The fields of a dataclass in their order. One whose default is None may be unknown: then it is left out."""
    values = {field: getattr(record, field.name) for field in fields(record)}
    return {field.name: value for field, value in values.items() if value is not None or field.default is not None}


def from_json(kind: type[T], content: dict[str, Any]) -> T:
    """The inverse of `to_json`. Keys that are no fields of the dataclass are ignored."""
    names = {field.name for field in fields(kind)}  # type: ignore[arg-type]
    return kind(**{key: value for key, value in content.items() if key in names})


@dataclass(frozen=True)
class Hardware:
    """What steps run on: `cpu` or `cuda`, the processor or GPU in words, and the CPU threads of each step."""

    device: str | None = None
    machine: str | None = None
    threads: int | None = None


@dataclass(frozen=True)
class Note:
    """What is known of a step that has ended. What a note of an older version does not tell is None.

    Args:
        status: "done" or "diverged".
        diverged_in: the step that diverged: this one or one before it.
        parents: the hash of the file of each step whose file this one read.
        result: what the command printed with --json.
        sha256: the hash of the file that it left.
        seconds: its time, that of interrupted runs included.
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
        hint = "delete it: the step is made again"
        content = load(path, "status", hint=hint)
        if content["status"] == "done":
            load(path, "sha256", "parents", "result", hint=hint)
        return from_json(Note, content)


@dataclass(frozen=True)
class Spent:
    """What is known of a step under way: how long it has run, and with how many threads; it goes on with as many."""

    seconds: float
    threads: int | None

    @staticmethod
    def load(path: Path, threads: int | None) -> Spent:
        """Read what an interrupted run has left; 0 seconds where there is nothing, or it is damaged.

        Args:
            threads: of a step that has not begun, or whose file is older than this field.
        """
        with contextlib.suppress(OSError, ValueError):  # seconds are not worth a refusal
            found = json.loads(path.read_text())
            if not isinstance(found, dict):
                return Spent(float(found), threads)
            return Spent(found.get("seconds", 0.0), found.get("threads", threads))
        return Spent(0.0, threads)
