"""The processor's name, for the line under a table of times."""

from __future__ import annotations

import platform
from functools import cache
from pathlib import Path


def processor() -> str:
    """Return the processor's name and its vector instruction sets."""
    flags = f" {_told().get('flags', '')} "
    known = {"avx2": "AVX2", "avx512f": "AVX512", "avx512_vnni": "VNNI", "avx_vnni": "AVX-VNNI", "amx_int8": "AMX"}
    return f"{name()} ({', '.join(text for flag, text in known.items() if f' {flag} ' in flags) or 'no AVX2'})"


def name() -> str:
    """Return the processor's name; without Linux's /proc, that of its kind."""
    return _told().get("model name") or platform.processor() or platform.machine()


@cache
def _told() -> dict[str, str]:
    """Return what /proc/cpuinfo tells of the first processor."""
    found: dict[str, str] = {}
    try:
        for line in Path("/proc/cpuinfo").read_text().splitlines():
            key, _, value = line.partition(":")
            found.setdefault(key.strip(), value.strip())
    except OSError:
        pass
    return found
