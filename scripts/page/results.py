"""What the page shows of a result of the ladder, by its JSON file alone: results/NAME/ROW-sSEED.json."""

from __future__ import annotations

import math
from pathlib import Path

from engine.checkpoint.words import flat
from engine.errors import BAD_CHECKPOINT, UserError
from engine.system.terminal import one_line
from engine.tasks.score import ACCURACY
from scripts import methods
from scripts.ladder import result as stored
from scripts.ladder.result import Diverged, Done, Result, Stale
from scripts.page.entry import Entry, Layer
from scripts.table import ResultRow

SUFFIX = ".json"


def read(path: Path) -> Done:
    """Read a result that can stand in a table.

    Raises:
        UserError: exit 3 for a file that is no result, or one of an older version; exit 2 for a row without an accuracy.
    """
    try:
        found = stored.load(path)
    except UserError as fault:
        hint = f"name results of the ladder, {path.parent}/*-s*.json, or checkpoints"
        raise UserError(f"{path} is no result of the ladder: {fault}", hint, BAD_CHECKPOINT) from fault
    if isinstance(found, (Diverged, Stale)):
        raise UserError(f"{path}: {without_accuracy(found)}", "leave it out")
    if wrong := _wrong(found):
        raise UserError(
            f"{path} is damaged: {wrong}", "delete it and fill its row again: scripts.results", BAD_CHECKPOINT
        )
    return found


def _wrong(found: Done) -> str:
    """Return which field holds a value of another kind; empty where none does."""
    numbers = {name: getattr(found, name) for name in ("accuracy", "macs", "params", "size_bits")}
    widths = {"cfg": found.cfg, "cfg_before": found.cfg_before or []}
    odd = [name for name, value in numbers.items() if type(value) not in (int, float) or not math.isfinite(value)]
    odd += [
        name for name, value in widths.items() if not isinstance(value, list) or any(type(n) is not int for n in value)
    ]
    if not isinstance(found.curve, list) or not all(isinstance(each, dict) for each in found.curve):
        odd.append("curve")
    if isinstance(found.commands, list) and len(found.commands) != len(found.version or found.commands):
        odd.append("commands")
    return f"{', '.join(odd)} of another kind than a result has" if odd else ""


def without_accuracy(found: Diverged | Stale) -> str:
    """Return in words why a result has no accuracy."""
    if isinstance(found, Diverged):
        return f"{found.row}, seed {found.seed}, diverged in {found.diverged_in}"
    return f"{found.row}, seed {found.seed}, is to be run again"


def refuse_old(path: Path, found: Done) -> None:
    """Refuse a result that does not tell where it comes from.

    Raises:
        UserError: exit 3.
    """
    lacks = [name for name in ("commands", "version", "sha256") if getattr(found, name) is None]
    if lacks:
        text = f"{path} is of an older version: it lacks {', '.join(lacks)}, which the page shows"
        raise UserError(text, "delete it and fill its row again: scripts.results", BAD_CHECKPOINT)


def row(path: Path, found: Done) -> ResultRow:
    """Return the row that a result fills in a table."""
    return ResultRow(
        type=f"{found.label}, seed {found.seed}",
        dataset=found.dataset,
        epochs=found.epochs,
        accuracy=found.accuracy,
        macs=found.macs,
        params=found.params,
        size_bits=found.size_bits,
        remarks="" if found.judged_on == "test" else "judged on held-out training pictures",
        judged_on=found.judged_on,
        file=str(path),
        score=ACCURACY,
    )


def entry(path: Path, found: Done) -> Entry:
    """Return what the page shows of a result; the bits of its layers are not in it.

    Raises:
        UserError: as `refuse_old`.
    """
    refuse_old(path, found)
    before = found.cfg_before or found.cfg
    return Entry(
        name=f"{found.row}-s{found.seed}",
        row=row(path, found),
        method=methods.of_row(found.row),
        network=found.arch or "unknown",
        layers=tuple(
            Layer(f"width {number}", kept, was)
            for number, (kept, was) in enumerate(zip(found.cfg, before, strict=False), 1)
        ),
        curve=tuple(found.curve),
        no_curve="" if found.curve else "its last stage has no epochs",
        provenance=_told(found),
    )


def _told(found: Done) -> str:
    lines = [f"# seed {found.seed}; {one_line(found.machine)}"]
    hashes, versions = found.sha256 or {}, found.version or {}
    for command, step in zip(found.commands or (), versions, strict=False):
        lines += [
            f"# {one_line(step)}: sha256 {hashes.get(step, 'unknown')}; {one_line(flat(versions[step] or {})) or 'versions unknown'}",
            one_line(command),
        ]
    return "\n".join(lines)


def of_ladder(folder: Path, results: dict[str, list[Result]], order: list[str]) -> tuple[list[Entry], list[str]]:
    """Return the entries of a ladder in the order of its rows, and in words the results that have no accuracy.

    Raises:
        UserError: as `refuse_old`.
    """
    entries, without = [], []
    for found in (each for name in order for each in results.get(name, ())):
        if isinstance(found, Done):
            entries.append(entry(folder / f"{found.row}-s{found.seed}{SUFFIX}", found))
        else:
            without.append(without_accuracy(found))
    return entries, without
