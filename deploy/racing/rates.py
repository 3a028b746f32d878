"""The native executor's rate beside what one core reaches at best, and its time per operation."""

from __future__ import annotations

from dataclasses import asdict
from typing import Any

from torch import Tensor

from deploy.native.executor import Native
from deploy.native.profile import peaks, spent, table, total_macs
from deploy.racing.clock import Timed
from engine.checkpoint.words import counted
from engine.system.terminal import columns


def rates(
    native: Any, x: Tensor, results: dict[int, dict[str, Timed]], threads: int, profile: bool
) -> tuple[list[str], list[dict[str, Any]]]:
    """Return lines that compare the native executor with the core's peak and, with `profile`, its time per operation.

    Returns:
        lines of text; the profile as data.
    """
    if not isinstance(native, Native):
        return (["--profile: the native executor was not measured"] if profile else []), []
    best, macs = peaks(native), total_macs(native.program)
    lines = []
    for batch, timed in results.items():
        rate = macs * batch / (timed["native executor"].milliseconds / 1000) / 1e9
        lines.append(f"native executor, batch {batch}: {rate:.0f} GMAC/s with {threads} thread{'s' * (threads > 1)}")
    lines.append(
        f"one core, measured: {best.of_bytes / 1e9:.0f} GMAC/s of bytes, {best.of_bits / 1e9:.0f} GMAC/s of signs, "
        f"by {native.engine.kernels}"
    )
    if not profile:
        return lines, []
    found = spent(native, x[:64])
    lines += [
        "",
        f"the native executor, {counted(min(len(x), 64), 'picture')} one after the other on one thread:",
        *columns(table(found), left=3),
    ]
    return lines, [asdict(each) for each in found]
