"""The record of one row of the ladder for its JSON file: its numbers and their provenance."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterable
from typing import Any

import torch

from engine.checkpoint.format import Checkpoint
from engine.checkpoint.history import Prune
from engine.cli.archs import is_users_code
from engine.data.info import CLASSIFICATION
from engine.system import device, processor
from engine.training import flags_file
from quant import restore
from scripts import describe
from scripts.ladder.notes import Hardware, Note, load
from scripts.ladder.result import Diverged, Done
from scripts.ladder.rows import LadderRow
from scripts.ladder.runner import Node, plain

NOT_KNOWN = Note("unknown")


def of(row: LadderRow, node: Node, command: Callable[[Node], list[str]], arch: str) -> Done | Diverged:
    """Return the record of a row whose last step has ended.

    Args:
        command: returns the command of a step, for old notes that lack it.
        arch: the ladder's network.

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
    """Return the fields that `Done` and `Diverged` share: the row and how it was made."""
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
    """Return the fields of `Done` that come from the last step's file: its metrics and its network's costs."""
    opened = restore.open(node.model, arch if is_users_code(arch) else None)
    checkpoint, counted = opened.checkpoint, describe.row(opened)
    return {
        "dataset": checkpoint.dataset.label,
        "pictures": checkpoint.metrics.pictures or 0,
        "judged_on": checkpoint.metrics.judged_on,
        "task": checkpoint.dataset.task if checkpoint.dataset.task != CLASSIFICATION else None,
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
    """Return the precision of a step's training, from its run folder. Steps without training count as fp32."""
    path = node.model.with_suffix("") / flags_file.NAME
    if not path.exists():
        return "fp32"
    return load(path, "resolved", hint=f"delete {node.note}; the step runs again")["resolved"]["precision"]


def _on_the_way(said: Iterable[str | None]) -> str:
    """Join the devices or machines of all steps, each once. Old notes lack them: "unknown"."""
    return "; ".join(dict.fromkeys(name or "unknown" for name in said))


def hardware(name: str, threads: int) -> Hardware:
    """Return the hardware that --device NAME chooses on this machine.

    Args:
        threads: CPU threads of each step.
    """
    kind = device.choose(name).type
    return Hardware(
        kind, torch.cuda.get_device_name() if kind == "cuda" else f"{processor.name()}, {os.cpu_count()} cores", threads
    )
