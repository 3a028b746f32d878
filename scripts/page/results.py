"""What the page shows of a result of the ladder, by its JSON file alone: results/NAME/ROW-sSEED.json."""

from __future__ import annotations

import math
from pathlib import Path
from typing import Any

from engine.checkpoint.words import flat
from engine.cli.naming import Missing, called
from engine.errors import BAD_CHECKPOINT, UserError
from engine.system.terminal import one_line
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
    if not path.exists():
        raise Missing(path, check="check the path")
    try:
        found = stored.load(path)
    except UserError as fault:
        hint = f"name results of the ladder, {path.parent}/*-s*.json, or checkpoints"
        why = str(fault).removeprefix(f"{path} is damaged: ")
        raise UserError(f"{path} is no result of the ladder: {why}", hint, BAD_CHECKPOINT) from fault
    if isinstance(found, (Diverged, Stale)):
        raise UserError(f"{path}: {without_accuracy(found)}", "leave it out")
    refuse_damaged(path, found)
    return found


def refuse_damaged(path: Path, found: Done) -> None:
    """Refuse a result whose fields hold values of another kind.

    Raises:
        UserError: exit 3.
    """
    if wrong := _wrong(found):
        raise UserError(
            f"{path} is damaged: {wrong}",
            f"delete it and fill its row again: {called('scripts.results')}",
            BAD_CHECKPOINT,
        )


def _wrong(found: Done) -> str:
    """Return which fields hold values of another kind or number; empty where none does."""
    numbers = {name: getattr(found, name) for name in ("accuracy", "macs", "params", "size_bits")}
    odd = [name for name, value in numbers.items() if not _is_number(value)]
    odd += [name for name, each in (("cfg", found.cfg), ("cfg_before", found.cfg_before or [])) if not _are(each, int)]
    if not odd and found.cfg and found.cfg_before and len(found.cfg) != len(found.cfg_before):
        return f"cfg has {len(found.cfg)} widths, cfg_before {len(found.cfg_before)}"
    if not _are(found.curve, dict) or not all(_is_number(value) for each in found.curve for value in each.values()):
        odd.append("curve")
    texts = ("label", "dataset", "epochs", "judged_on", "machine")
    odd += [name for name in texts if not isinstance(getattr(found, name), str)]
    odd += [name for name in ("version", "sha256") if not isinstance(getattr(found, name) or {}, dict)]
    told = found.commands
    if told is not None and (not _are(told, str) or (found.version is not None and len(told) != len(found.version))):
        odd.append("commands")
    return f"{', '.join(odd)} of another kind than a result has" if odd else ""


def _is_number(value: Any) -> bool:
    return type(value) in (int, float) and math.isfinite(value)


def _are(values: Any, kind: Any) -> bool:
    """Whether this is a list of such values."""
    return isinstance(values, list) and all(isinstance(value, kind) for value in values)


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
        raise UserError(text, f"delete it and fill its row again: {called('scripts.results')}", BAD_CHECKPOINT)


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
        remarks="" if found.judged_on == "test" else "evaluated on held-out training pictures",
        judged_on=found.judged_on,
        file=str(path),
        score=found.score,
    )


def entry(path: Path, found: Done) -> Entry:
    """Return what the page shows of a result; the bits of its layers are not in it.

    Raises:
        UserError: as `refuse_damaged` and `refuse_old`.
    """
    refuse_damaged(path, found)
    refuse_old(path, found)
    before = found.cfg and (found.cfg_before or found.cfg)  # your own networks have no cfg
    return Entry(
        name=f"{found.row}-s{found.seed}",
        row=row(path, found),
        method=methods.of_row(found.row),
        network=found.arch or "unknown",
        layers=tuple(
            Layer(f"width {number}", kept, was)
            for number, (kept, was) in enumerate(zip(found.cfg, before, strict=True), 1)
        ),
        curve=tuple(found.curve),
        no_curve="" if found.curve else "its last stage has no epochs",
        provenance=_told(found),
    )


def _told(found: Done) -> str:
    lines = [f"# seed {found.seed}; {one_line(found.machine)}"]
    hashes, versions = found.sha256 or {}, found.version or {}
    for command, step in zip(found.commands or (), versions, strict=True):
        lines += [
            f"# {one_line(step)}: sha256 {hashes.get(step, 'unknown')}; {one_line(flat(versions[step] or {})) or 'versions unknown'}",
            one_line(command),
        ]
    return "\n".join(lines)


def of_ladder(folder: Path, results: dict[str, list[Result]], order: list[str]) -> tuple[list[Entry], list[str]]:
    """Return the entries of a ladder in the order of its rows, and in words the results that have no accuracy.

    Raises:
        UserError: as `entry`.
    """
    entries, without = [], []
    for found in (each for name in order for each in results.get(name, ())):
        if isinstance(found, Done):
            entries.append(entry(folder / f"{found.row}-s{found.seed}{SUFFIX}", found))
        else:
            without.append(without_accuracy(found))
    return entries, without
