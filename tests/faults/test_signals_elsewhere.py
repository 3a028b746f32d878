"""Signals during code that swallows exceptions, converts them, or dies from them."""

from __future__ import annotations

import os
import signal
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch

from engine.checkpoint import archive
from engine.data import catalogue
from engine.errors import INTERRUPTED, TERMINATED
from models.graph.capture import cache
from tests.faults.conftest import taken

TERM, INT = signal.SIGTERM, signal.SIGINT


class Dying:
    """An object that gets a signal in its destructor, where Python only prints exceptions."""

    def __del__(self) -> None:
        os.kill(os.getpid(), TERM)


def test_a_signal_that_python_loses_is_obeyed_later(
    line: tuple, whole: tuple, command: Callable, monkeypatch: pytest.MonkeyPatch
) -> None:
    real = catalogue.load
    with monkeypatch.context() as patch:
        patch.setattr(catalogue, "load", lambda *given, **how: (Dying(), real(*given, **how))[1])
        done = command(*line)
    assert done.code == TERMINATED
    assert done.err.startswith("error: stopped by SIGTERM, everything up to here is saved\nhint: ")
    assert archive.load(Path("runs/nin/state.pth"))[0]["step"] == 1
    assert command(*line, "--resume").code == 0
    assert taken() == whole


@pytest.mark.parametrize(("number", "code"), [(TERM, TERMINATED), (INT, INTERRUPTED)])
def test_a_fault_that_a_signal_became_is_the_signal(
    number: int, code: int, line: tuple, command: Callable, monkeypatch: pytest.MonkeyPatch
) -> None:
    """An interrupted import of a C++ module fails with `initialization failed`."""

    def load(*_: Any, **__: Any) -> None:
        try:
            os.kill(os.getpid(), number)
        except BaseException as fault:
            raise ImportError("initialization failed") from fault

    monkeypatch.setattr(catalogue, "load", load)
    done = command(*line)
    assert done.code == code
    assert done.err.splitlines()[-1].startswith("hint: continue with: ")


@pytest.mark.parametrize("number", [TERM, INT])
def test_a_capture_comes_to_its_end(
    number: int, line: tuple, command: Callable, monkeypatch: pytest.MonkeyPatch
) -> None:
    """torch.export calls Python from C++: an exception raised by a signal there can abort the process."""
    real, done = torch.export.export, []

    def export(*arguments: Any, **more: Any) -> Any:
        os.kill(os.getpid(), number)
        done.append(real(*arguments, **more))
        return done[0]

    cache.forget()
    monkeypatch.setattr(torch.export, "export", export)
    assert command(*line).code == (INTERRUPTED if number == INT else TERMINATED)
    assert len(done) == 1
