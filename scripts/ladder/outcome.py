"""What scripts.results says at its end: rows for --json, a run that added nothing, and the error of failed steps."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from engine.errors import UserError
from engine.tasks.score import Score
from scripts.ladder.result import Done
from scripts.ladder.rows import LadderRow
from scripts.ladder.steps import STEPS
from scripts.ladder.table import Results

if TYPE_CHECKING:
    from scripts.ladder.runner import Node


def records(results: Results, rows: Sequence[LadderRow], score: Score) -> list[dict[str, Any]]:
    """Return the results of some rows for --json; a row that is not done has no score."""
    return [
        {
            "row": row.name,
            "seed": result.seed,
            "status": result.status,
            score.name: result.accuracy if isinstance(result, Done) else None,
        }
        for row in rows
        for result in results.get(row.name, ())
    ]


def nothing_new(folder: Path, results: Results, rows: Sequence[LadderRow], stopped: bool) -> str:
    """Word a run that added no result.

    Args:
        stopped: whether it was stopped, with rows left.
    """
    there = sum(len(results.get(row.name, ())) for row in rows)
    found = f"{folder}/ already held {there} results of these rows"
    return f"stopped before any row was done; {found}" if stopped else f"nothing new: {found}, and none was added"


def as_one(failed: dict[Node, UserError]) -> UserError:
    """Return the error that all failed steps share, else the first error with a hint to the logs."""
    node, fault = next(iter(failed.items()))
    if len({(str(f), f.hint, f.code) for f in failed.values()}) == 1:
        return UserError(str(fault), f"{STEPS[node.step].module} says: {fault.hint}", fault.code)
    return UserError(
        f"{len(failed)} steps failed, the first one {node.step}: {fault}", f"see {node.folder}/*.log", fault.code
    )
