"""Find the fastest executor for a network on this machine: measured once, and kept in the cache folder."""

from __future__ import annotations

import contextlib
import hashlib
import json
import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path

import torch

from deploy import description
from deploy.executors.base import Executor
from deploy.program import Program
from engine.errors import UserError
from engine.system.compiled import Unavailable, cache_folder
from engine.system.files import write_json
from engine.system.processor import processor

RUNS, SECONDS = 5, 2.0
"""Limits for each executor. The shortest run counts: other programs disturb it least."""
KEPT = 1000
"""The most results that the file keeps; the oldest are dropped."""


def fastest(
    program: Program, made: Mapping[str, Callable[[], Executor]], libraries: Sequence[str] = (), pictures: int = 1
) -> Executor:
    """Return the fastest executor.

    Args:
        made: by name, a function that makes an executor.
        libraries: names of the libraries in use; a change causes a new measurement.
        pictures: batch size.
    """
    if len(made) == 1:
        return next(iter(made.values()))()
    key, file = _key(program, made, (*libraries, str(pictures))), _file()
    known = _read(file)
    if known.get(key) in made:
        return made[known[key]]()
    executors = {name: make() for name, make in made.items()}
    x = torch.randn(pictures, *program.picture, generator=torch.Generator().manual_seed(0))
    best = min(executors, key=lambda name: _seconds(executors[name], x))
    if file is not None:
        kept = dict([*known.items(), (key, best)][-KEPT:])
        with contextlib.suppress(UserError):  # without the file it is measured again next time
            write_json(file, kept)
    return executors[best]


def _seconds(executor: Executor, x: torch.Tensor) -> float:
    """Return the seconds of the shortest run, after a warm-up run."""
    executor(x)
    found: list[float] = []
    end = time.perf_counter() + SECONDS
    while len(found) < RUNS and (not found or time.perf_counter() < end):
        begin = time.perf_counter()
        executor(x)
        found.append(time.perf_counter() - begin)
    return min(found)


def _key(program: Program, made: Mapping[str, object], libraries: Sequence[str]) -> str:
    """Return a hash of all that the choice depends on: the network, the processor, threads and libraries."""
    said, rows = description.written(program)
    words = json.dumps(
        [said, [*made], processor(), *libraries, torch.get_num_threads(), torch.__version__], sort_keys=True
    )
    found = hashlib.sha256(words.encode())
    for row in rows:
        found.update(row.tobytes())
    return found.hexdigest()[:32]


def _file() -> Path | None:
    try:
        return cache_folder() / "fastest.json"
    except Unavailable:
        return None


def _read(file: Path | None) -> dict[str, str]:
    try:
        known = json.loads(file.read_text()) if file is not None else {}
    except (OSError, ValueError):
        return {}
    return known if isinstance(known, dict) else {}
