"""Tests of the native engine run on each instruction set that this machine has; without a compiler they are skipped."""

from __future__ import annotations

import pytest

from deploy.native import compiler

SETS = ("plain C++", "AVX2", "AVX-VNNI", "AVX512 VNNI", "AVX512 VPOPCNT")


@pytest.fixture(params=SETS)
def kernels(request: pytest.FixtureRequest) -> str:
    """An instruction set."""
    try:
        here = compiler.instruction_sets()
    except compiler.Unavailable as fault:
        pytest.skip(str(fault))
    if request.param not in here:
        pytest.skip(f"this processor has no {request.param}")
    return request.param
