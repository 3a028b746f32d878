"""--profile: trace the time of training steps, for chrome://tracing or Perfetto."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import torch
from torch.profiler import ProfilerActivity, profile, schedule

from engine.system.messages import notice

SKIPPED, STEPS = 3, 5
"""Numbers of warm-up steps and of traced steps."""


@contextmanager
def profiled(path: Path | None) -> Iterator[Callable[[], None]]:
    """Write a trace of some steps to `path`; yield a function to call after each step. Without a path, do nothing."""
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
        notice(f"--profile: no trace, as it needs at least {SKIPPED + STEPS} steps")
