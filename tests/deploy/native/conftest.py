"""Run tests of the native engine on each instruction set of this machine; skip them without a compiler."""

from __future__ import annotations

import os

import pytest

from deploy.native import compiler

TILED = ("AMX emulated", "AMX")
SETS = ("plain C++", "AVX2", "AVX-VNNI", "AVX512 VNNI", "AVX512 VNNI + VPOPCNT", *TILED)

os.environ.setdefault(compiler.EMULATE, "1")  # set before any test loads the library, which is loaded once


def _here(name: str) -> str:
    try:
        here = compiler.instruction_sets()
    except compiler.Unavailable as fault:
        pytest.skip(str(fault))
    if name not in here:
        pytest.skip(f"this processor has no {name}")
    return name


@pytest.fixture(params=SETS)
def kernels(request: pytest.FixtureRequest) -> str:
    """Return an instruction set that runs here."""
    return _here(request.param)


@pytest.fixture(params=TILED)
def tiled(request: pytest.FixtureRequest) -> str:
    """Return an instruction set with tiles."""
    return _here(request.param)
