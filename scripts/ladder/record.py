"""One row of the ladder as a JSON file: its numbers, and everything that they were made from."""

from __future__ import annotations

import os
import platform
import re
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any

import torch

from engine.checkpoint.format import Checkpoint
from engine.checkpoint.history import Prune
from engine.cli.archs import is_users_code
from engine.system import device
from quant import restore
from scripts import describe
from scripts.ladder.notes import Hardware, Note, load
from scripts.ladder.result import Diverged, Done
from scripts.ladder.rows import LadderRow
from scripts.ladder.runner import Node, plain

NOT_KNOWN = Note("unknown")


def of(row: LadderRow, node: Node, command: Callable[[Node], list[str]], arch: str) -> Done | Diverged:
    """What is known of a row whose last step has ended.

    Args:
        command: stands in for the command of a step, where an old note does not tell it.
        arch: the network that the ladder is of.

    Raises:
        UserError: exit 3 for a damaged file of the row.
    """
    notes = {n.step: n.ended() or NOT_KNOWN for n in node.chain}
    made, last = _made(row, node, notes, command), notes[node.step]
    if last.status != "done":
        return Diverged(**made, diverged_in=last.diverged_in or node.step)
    precision = {n.step: _precision(n) for n in node.chain}
    return Done(**made, **_measured(row, node, arch), precision=precision, curve=(last.result or {}).get("epochs", []))


def _made(row: LadderRow, node: Node, notes: dict[str, Note], command: Callable[[Node], list[str]]) -> dict[str, Any]:
    """Which row it is, and how it was made: the fields that `Done` and `Diverged` share."""
    return {
        "row": row.name,
        "label": row.label,
        "seed": node.seed,
        "commands": [notes[n.step].command or plain(command(n)) for n in node.chain],
        "device": _on_the_way(note.device for note in notes.values()),
        "machine": _on_the_way(note.machine for note in notes.values()),
        "threads": {step: note.threads for step, note in notes.items()},
        "seconds": {step: note.seconds for step, note in notes.items()},
        "version": {step: note.version for step, note in notes.items()},
        "sha256": {step: note.sha256 for step, note in notes.items() if note.sha256 is not None},
    }


def _measured(row: LadderRow, node: Node, arch: str) -> dict[str, Any]:
    """What the file of the last step says, and what its network counts: fields of `Done`."""
    opened = restore.open(node.model, arch if is_users_code(arch) else None)
    checkpoint, counted = opened.checkpoint, describe.row(opened)
    return {
        "dataset": checkpoint.dataset.label,
        "pictures": checkpoint.metrics.pictures or 0,
        "judged_on": checkpoint.metrics.judged_on,
        "accuracy": _accuracy(row, checkpoint),
        "epochs": counted.epochs,
        "arch": checkpoint.arch,
        "cfg": checkpoint.cfg,
        "cfg_before": next((list(s.cfg_before) for s in checkpoint.history if isinstance(s, Prune)), None),
        "macs": counted.macs,
        "params": counted.params,
        "size_bits": counted.size_bits,
        "bytes_counted": (counted.size_bits + 7) // 8,
    }


def _accuracy(row: LadderRow, checkpoint: Checkpoint) -> float:
    if row.metric == "final":
        return checkpoint.metrics.accuracy
    return checkpoint.metrics.pruning[row.metric]


def _precision(node: Node) -> str:
    """That of a training step, from its run folder; pruning and calibration train nothing."""
    path = node.model.with_suffix("") / "flags.json"
    if not path.exists():
        return "fp32"
    return load(path, "resolved", hint=f"delete {node.note}: the step is made again")["resolved"]["precision"]


def _on_the_way(said: Iterable[str | None]) -> str:
    """What all steps ran on, each named once; notes from before this was written down do not say."""
    return "; ".join(dict.fromkeys(name or "unknown" for name in said))


def hardware(name: str, threads: int) -> Hardware:
    """What --device NAME means here.

    Args:
        threads: of each step.
    """
    kind = device.choose(name).type
    return Hardware(kind, torch.cuda.get_device_name() if kind == "cuda" else _processor(), threads)


def _processor() -> str:
    cpuinfo = Path("/proc/cpuinfo")
    found = re.search(r"model name\s*: (.+)", cpuinfo.read_text()) if cpuinfo.exists() else None
    return f"{found[1] if found else platform.machine()}, {os.cpu_count()} cores"
