"""python -m tests.tools.sanitized [COUNT]: run layers of any size on a sanitized engine, on each instruction set.

The engine is compiled with AddressSanitizer and UndefinedBehaviorSanitizer, which end this process at the first wrong
access. Without COUNT it is only compiled. AddressSanitizer must be loaded from the start of a process that uses it, by
LD_PRELOAD; it would slow the compiler down a hundred times.
"""

from __future__ import annotations

import sys

from hypothesis import given, settings
from hypothesis.strategies import one_of

from deploy.native import compiler

CHECKED = ("-O1", "-fsanitize=address,undefined", "-fno-sanitize-recover=all", "-fno-sanitize=alignment", "-g")
"""Alignment is not checked: rows of bytes begin anywhere, and x86 reads unaligned words."""


def main(count: int) -> None:
    compiler.MORE_FLAGS = (*compiler.MORE_FLAGS, *CHECKED)
    if not count:
        compiler.build()
        return
    from tests.deploy.native.sized import FAST, chained, check, depthwise, programs

    for kernels in compiler.instruction_sets():

        @settings(max_examples=count, derandomize=True, database=None, **FAST)
        @given(made=one_of(programs(), depthwise(), chained()))
        def each(made):  # type: ignore[no-untyped-def]
            check(made, kernels)  # noqa: B023  (called before the next one)

        each()
        print(kernels, count, flush=True)


if __name__ == "__main__":
    main(int(sys.argv[1]) if len(sys.argv) > 1 else 0)
