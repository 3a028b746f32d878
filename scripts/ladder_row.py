"""One row of the ladder as a JSON file: its numbers, and everything that they were made from."""

from __future__ import annotations

import json
import os
import platform
import re
import shlex
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch

from engine import checkpoint, device
from engine.checkpoint import Checkpoint
from scripts import describe as files
from scripts import ladder
from scripts.ladder import Row
from scripts.ladder_run import Node


def describe(row: Row, node: Node, command: Callable[[Node], list[str]]) -> dict[str, Any]:
    """What is known of a row whose last step has ended.

    Returns:
        status ("done", "diverged"), accuracy in percent (of the last epoch, on all test pictures), epochs of each stage,
        seconds of each step, MACs, parameters, counted bits, the commands, and the hashes of all files on the way.
    """
    chain = [Node(node.folder, node.seed, step) for step in ladder.chain(row.step)]
    notes = {n.step: n.ended() or {} for n in chain}
    known: dict[str, Any] = {
        "row": row.name,
        "label": row.label,
        "seed": node.seed,
        "status": notes[node.step]["status"],
        "commands": [_plain(command(n)) for n in chain],
        "seconds": {step: note.get("seconds") for step, note in notes.items()},
        "version": {step: note.get("version") for step, note in notes.items()},
    }
    if known["status"] != "done":
        return {**known, "diverged_in": notes[node.step]["diverged_in"]}
    content = checkpoint.load(node.model)
    counted, said = files.row(node.model), notes[node.step]["result"]
    return {
        **known,
        "dataset": content["dataset"]["label"],
        "pictures": content["metrics"]["pictures"],
        "judged_on": content["metrics"]["judged_on"],
        "accuracy": _accuracy(row, content),
        "epochs": counted.epochs,
        "precision": {n.step: _precision(n) for n in chain},
        "arch": content["arch"],
        "cfg": content["cfg"],
        "cfg_before": next((t["cfg_before"] for t in content["transforms"] if t["stage"] == "prune"), None),
        "macs": counted.macs,
        "params": counted.params,
        "size_bits": counted.size_bits,
        "bytes_counted": (counted.size_bits + 7) // 8,
        "sha256": {step: note["sha256"] for step, note in notes.items()},
        "curve": said.get("epochs", []),
    }


def _accuracy(row: Row, content: Checkpoint) -> float:
    if row.figure == "final":
        return content["best_acc"]
    return content["metrics"]["pruning"][row.figure]


def _precision(node: Node) -> str:
    """That of a training step, from its run folder; pruning and calibration train nothing."""
    path = node.model.with_suffix("") / "flags.json"
    return json.loads(path.read_text())["resolved"]["precision"] if path.exists() else "fp32"


def _plain(words: list[str]) -> str:
    """A command line without the places of this machine: an absolute path by its last part."""
    return "python -m " + shlex.join(Path(word).name if word.startswith("/") else word for word in words)


def hardware(name: str) -> dict[str, str]:
    """What --device NAME means here: `device` (cpu or cuda), and `machine` in words."""
    kind = device.choose(name).type
    return {"device": kind, "machine": torch.cuda.get_device_name() if kind == "cuda" else _processor()}


def _processor() -> str:
    cpuinfo = Path("/proc/cpuinfo")
    found = re.search(r"model name\s*: (.+)", cpuinfo.read_text()) if cpuinfo.exists() else None
    return f"{found[1] if found else platform.machine()}, {os.cpu_count()} cores"
