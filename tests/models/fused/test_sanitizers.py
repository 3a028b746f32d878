"""The loops under AddressSanitizer and UBSan: no read or write beside an array, no undefined step."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

from engine.system.compiled import CACHE, system_compiler
from tests.tools.house import ROOT

COUNT = 300


@pytest.mark.slow
def test_no_wrong_access(tmp_path: Path) -> None:
    asked = [system_compiler(), "-print-file-name=libasan.so"]
    found = subprocess.run(asked, capture_output=True, text=True, check=True).stdout.strip()
    if not os.path.isabs(found):
        pytest.skip("the compiler has no AddressSanitizer")
    command, place = [sys.executable, "-m", "tests.tools.sanitized_loops"], {**os.environ, CACHE: str(tmp_path)}
    subprocess.run(command, cwd=ROOT, env=place, check=True, timeout=900)
    done = subprocess.run(
        [*command, str(COUNT)], cwd=ROOT, env={**place, "LD_PRELOAD": found, "ASAN_OPTIONS": "detect_leaks=0"},
        capture_output=True, text=True, timeout=900,
    )  # fmt: skip
    assert (done.returncode, done.stdout) == (0, f"{COUNT}\n"), done.stderr[-2000:]
