"""One row of the ladder as a JSON file: its numbers, and everything that they were made from."""

from __future__ import annotations

import os
import platform
import re
from collections.abc import Callable, Iterable, Mapping
from pathlib import Path
from typing import Any

import torch

from engine.checkpoint.format import Checkpoint
from engine.checkpoint.history import Prune
from engine.system import device
from models import files as models
from scripts import describe as files
from scripts.ladder.notes import load
from scripts.ladder.rows import Row
from scripts.ladder.runner import Node, plain


def describe(row: Row, node: Node, command: Callable[[Node], list[str]], now: Mapping[str, Any]) -> dict[str, Any]:
    """What is known of a row whose last step has ended.

    Args:
        command, now: what stands in for what old notes do not tell: a step's command, and what it ran on.

    Returns:
        status ("done", "diverged"), accuracy in percent (of the last epoch, on all test pictures), epochs of each stage,
        seconds of each step, MACs, parameters, counted bits, the commands, and the hashes of all files on the way.
    """
    chain = node.chain
    notes = {n.step: n.ended() or {} for n in chain}
    known: dict[str, Any] = {
        "row": row.name,
        "label": row.label,
        "seed": node.seed,
        "status": notes[node.step]["status"],
        "commands": [notes[n.step].get("command") or plain(command(n)) for n in chain],
        "device": _on_the_way(notes.values(), "device"),
        "machine": _on_the_way(notes.values(), "machine"),
        "threads": {step: note.get("threads") for step, note in notes.items()},
        "seconds": {step: note.get("seconds") for step, note in notes.items()},
        "version": {step: note.get("version") for step, note in notes.items()},
        "sha256": {step: note["sha256"] for step, note in notes.items() if "sha256" in note},
    }
    if known["status"] != "done":
        return {**known, "diverged_in": notes[node.step]["diverged_in"]}
    checkpoint = models.read(node.model)
    counted, said = files.row(node.model), notes[node.step]["result"]
    return {
        **known,
        "dataset": checkpoint.dataset.label,
        "pictures": checkpoint.metrics.pictures,
        "judged_on": checkpoint.metrics.judged_on,
        "accuracy": _accuracy(row, checkpoint),
        "epochs": counted.epochs,
        "precision": {n.step: _precision(n) for n in chain},
        "arch": checkpoint.arch,
        "cfg": checkpoint.cfg,
        "cfg_before": next((list(s.cfg_before) for s in checkpoint.history if isinstance(s, Prune)), None),
        "macs": counted.macs,
        "params": counted.params,
        "size_bits": counted.size_bits,
        "bytes_counted": (counted.size_bits + 7) // 8,
        "curve": said.get("epochs", []),
    }


def _accuracy(row: Row, checkpoint: Checkpoint) -> float:
    if row.figure == "final":
        return checkpoint.metrics.accuracy
    return checkpoint.metrics.more["pruning"][row.figure]


def _precision(node: Node) -> str:
    """That of a training step, from its run folder; pruning and calibration train nothing."""
    path = node.model.with_suffix("") / "flags.json"
    if not path.exists():
        return "fp32"
    return load(path, "resolved", hint=f"delete {node.note}: the step is made again")["resolved"]["precision"]


def _on_the_way(notes: Iterable[Mapping[str, Any]], key: str) -> str:
    """What all steps ran on, each named once; notes from before this was written down do not say."""
    return "; ".join(dict.fromkeys(str(note.get(key, "unknown")) for note in notes))


def hardware(name: str) -> dict[str, Any]:
    """What --device NAME means here: `device` (cpu or cuda), and `machine` in words."""
    kind = device.choose(name).type
    return {"device": kind, "machine": torch.cuda.get_device_name() if kind == "cuda" else _processor()}


def _processor() -> str:
    cpuinfo = Path("/proc/cpuinfo")
    found = re.search(r"model name\s*: (.+)", cpuinfo.read_text()) if cpuinfo.exists() else None
    return f"{found[1] if found else platform.machine()}, {os.cpu_count()} cores"
