"""The kernels under AddressSanitizer and UBSan: no read or write beside an array, no undefined step."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

from deploy.native import compiler
from engine.system.compiled import CACHE, system_compiler
from tests.tools.house import ROOT

COUNT = 200


@pytest.mark.slow
def test_no_wrong_access_on_any_instruction_set(tmp_path: Path, engine: compiler.Engine) -> None:
    here = compiler.instruction_sets()
    found = subprocess.run(
        [system_compiler(), "-print-file-name=libasan.so"], capture_output=True, text=True, check=True
    ).stdout.strip()
    if not os.path.isabs(found):
        pytest.skip("the compiler has no AddressSanitizer")
    command, place = [sys.executable, "-m", "tests.tools.sanitized"], {**os.environ, CACHE: str(tmp_path)}
    subprocess.run(command, cwd=ROOT, env=place, check=True, timeout=900)
    done = subprocess.run(
        [*command, str(COUNT)], cwd=ROOT, env={**place, "LD_PRELOAD": found, "ASAN_OPTIONS": "detect_leaks=0"},
        capture_output=True, text=True, timeout=3000,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr[-2000:]
    assert done.stdout.splitlines() == [f"{kernels} {COUNT}" for kernels in here]
