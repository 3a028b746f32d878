"""Run commands in several processes on this machine, started by torchrun, each with one thread."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

REPO = Path(__file__).parents[2]
Together = Callable[..., subprocess.Popen[str]]


@pytest.fixture
def together(tmp_path: Path) -> Together:
    """Return a function that starts `python -m MODULE WORDS...` in several processes in an empty folder; one without torchrun."""

    def start(count: int, *line: str, options: tuple[str, ...] = ()) -> subprocess.Popen[str]:
        run = ("torch.distributed.run", "--standalone", f"--nproc-per-node={count}", *options, "-m")
        words = [sys.executable, "-m", *(run if count > 1 else ()), *line]
        env = {**os.environ, "PYTHONPATH": str(REPO), "OMP_NUM_THREADS": "1"}
        return subprocess.Popen(words, cwd=tmp_path, env=env, text=True, stdout=subprocess.PIPE, stderr=subprocess.PIPE)

    return start


def ended(process: subprocess.Popen[str], timeout: float = 240) -> tuple[int, str, str]:
    """Return a process's exit status, stdout and stderr; kill a process that does not end."""
    try:
        out, err = process.communicate(timeout=timeout)
    except subprocess.TimeoutExpired:
        process.kill()
        raise
    return process.returncode, out, err
