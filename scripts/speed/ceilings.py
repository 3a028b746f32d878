"""Measured upper bounds of a device: matrix products and copies of memory."""

from __future__ import annotations

import statistics
import time
from collections.abc import Callable
from functools import partial

import torch

SIDE = 2048
MEGABYTES = 256


def ceilings(device: torch.device) -> dict[str, float]:
    """Measure GFLOP/s of fp32 and bf16 matrix products, and GB/s read and written by a copy."""
    found = {}
    for name, dtype in (("fp32", torch.float32), ("bf16", torch.bfloat16)):
        a, b = (torch.randn(SIDE, SIDE, device=device).to(dtype) for _ in range(2))
        found[f"{name}_gflops"] = 2 * SIDE**3 / _seconds(partial(torch.matmul, a, b), device) / 1e9
    held = torch.zeros(MEGABYTES * 2**18, device=device)
    into = torch.empty_like(held)
    found["copy_gb_s"] = 2 * held.nbytes / _seconds(lambda: into.copy_(held), device) / 1e9
    return found


def _seconds(run: Callable[[], object], device: torch.device) -> float:
    def once() -> float:
        started = time.perf_counter()
        run()
        if device.type == "cuda":
            torch.cuda.synchronize()
        return time.perf_counter() - started

    once()
    return statistics.median(once() for _ in range(7))
