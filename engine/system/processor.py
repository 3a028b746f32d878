"""The processor's name, for the line under a table of times."""

from __future__ import annotations

import platform
from pathlib import Path


def processor() -> str:
    """Return the processor's name and its vector instruction sets."""
    words, flags = platform.processor() or platform.machine(), ""
    try:
        for line in Path("/proc/cpuinfo").read_text().splitlines():
            if line.startswith("model name"):
                words = line.partition(":")[2].strip()
            if line.startswith("flags"):
                flags = line
    except OSError:
        pass
    known = {"avx2": "AVX2", "avx512f": "AVX512", "avx512_vnni": "VNNI", "avx_vnni": "AVX-VNNI", "amx_int8": "AMX"}
    return f"{words} ({', '.join(text for flag_, text in known.items() if f' {flag_}' in flags + ' ') or 'no AVX2'})"
