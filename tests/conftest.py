"""Shared by the tests: commands run in this process, in an empty folder, on few small pictures."""

from __future__ import annotations

import importlib
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace

import pytest
import torch

from engine.folder import RunFolder

NARROW = "8,8,8,8,8,8,8,8"
SMALL = ("--dataset", "digits", "--image_size", "8", "--epochs", "1", "--quiet", "--cpu", "--precision", "fp32")
"""Flags that make any training command take about a second."""


@pytest.fixture(autouse=True)
def _one_thread() -> None:
    torch.set_num_threads(1)  # networks this small only wait for each other on two


@pytest.fixture
def workplace(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """An empty working folder: models_save/ and runs/ appear here."""
    monkeypatch.chdir(tmp_path)
    return tmp_path


@pytest.fixture
def command(
    workplace: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> Callable[..., SimpleNamespace]:
    """Run `python -m MODULE ARGS` in this process; gives code, out, err and the last line of stdout as `path`."""
    monkeypatch.setattr(RunFolder, "draw", lambda self, rows: None)  # longer than such a run; test_folder draws

    def call(module: str, *args: object) -> SimpleNamespace:
        capsys.readouterr()
        code = importlib.import_module(module).main([str(a) for a in args])
        out, err = capsys.readouterr()
        return SimpleNamespace(code=code, out=out, err=err, path=(out.strip().splitlines() or [""])[-1])

    return call
