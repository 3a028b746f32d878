"""Run a module of tests/tools that compiles C++ with sanitizers, in a process that loads them from its start."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

from engine.system.compiled import CACHE, system_compiler
from tests.tools.house import ROOT


def _said(flag: str) -> str:
    return subprocess.run([system_compiler(), flag], capture_output=True, text=True, check=True).stdout.strip()


def checked(module: str, count: int, cache: Path, seconds: int) -> str:
    """Compile the library without AddressSanitizer loaded, then return the output of `python -m MODULE COUNT`.

    Args:
        cache: an empty folder for the library.

    Raises:
        AssertionError: if the module fails.
    """
    name, found = (_said(f) for f in ("--version", "-print-file-name=libasan.so"))
    if "clang" in name or not os.path.isabs(found):
        pytest.skip("only GCC's AddressSanitizer is a library that a process can load at its start")
    command, place = [sys.executable, "-m", module], {**os.environ, CACHE: str(cache)}
    subprocess.run(command, cwd=ROOT, env=place, check=True, timeout=900)
    done = subprocess.run(
        [*command, str(count)], cwd=ROOT, env={**place, "LD_PRELOAD": found, "ASAN_OPTIONS": "detect_leaks=0"},
        capture_output=True, text=True, timeout=seconds,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr[-2000:]
    return done.stdout
