"""--profile: where the time of training steps goes, as a trace for chrome://tracing or Perfetto."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import torch
from torch.profiler import ProfilerActivity, profile, schedule

from engine.system.said import notice

SKIPPED, STEPS = 3, 5
"""Steps that warm up, and those that are traced."""


@contextmanager
def profiled(path: Path | None) -> Iterator[Callable[[], None]]:
    """Write a trace of some steps to `path`; gives what is to be called after each. Without a path it does nothing."""
    if path is None:
        yield lambda: None
        return
    path.unlink(missing_ok=True)
    kinds = [ProfilerActivity.CPU, *([ProfilerActivity.CUDA] if torch.cuda.is_available() else [])]

    def write(found: profile) -> None:
        found.export_chrome_trace(str(path))

    plan = schedule(wait=SKIPPED - 1, warmup=1, active=STEPS, repeat=1)
    with profile(activities=kinds, schedule=plan, on_trace_ready=write) as running:
        yield running.step
    if not path.exists():
        notice(f"--profile: no trace of fewer than {SKIPPED + STEPS} steps")
