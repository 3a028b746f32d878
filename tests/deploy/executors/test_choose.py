"""The choice of the executor: by name, or the fastest one, measured once for a network and kept."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import torch
from torch import Tensor

from deploy.executors import choose, measured
from deploy.executors.choose import Reference
from deploy.executors.stock import Stock
from deploy.program import Program
from deploy.reference.run import run
from deploy.run import EXECUTORS
from engine.errors import USAGE, UserError
from engine.system.compiled import CACHE, Unavailable
from tests.deploy.quantized import lowered, merged, pictures


@pytest.fixture
def program() -> Program:
    return lowered(merged("Residual", "w4a4"))


def absent(_: Program) -> None:
    raise Unavailable("there is no compiler")


def test_executors_by_name(program: Program) -> None:
    assert ("auto", *choose.MAKERS) == EXECUTORS
    x = pictures()
    chosen = {name: choose.choose(name, program) for name in ("torch", "reference")}
    assert isinstance(chosen["reference"], Reference)
    assert isinstance(chosen["torch"], Stock)
    assert torch.equal(chosen["reference"](x), run(program, x))
    for name, executor in chosen.items():
        assert executor.name == name
        assert executor.how


def test_without_a_native_engine_auto_says_why_and_native_is_refused(
    program: Program, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(choose, "_native", absent)
    monkeypatch.setitem(choose.MAKERS, "native", absent)
    assert choose.choose("auto", program).name == "torch"
    assert capsys.readouterr().err == "notice: no native engine: there is no compiler\n"
    with pytest.raises(UserError, match="there is no native engine here: there is no compiler") as fault:
        choose.choose("native", program)
    assert fault.value.code == USAGE


class Sleeper:
    """An executor that sleeps."""

    how = "it waits"

    def __init__(self, name: str, seconds: float, made: list[str]) -> None:
        self.name, self.seconds = name, seconds
        made.append(name)

    def __call__(self, x: Tensor) -> Tensor:
        measured.time.sleep(self.seconds)
        return x


def race(program: Program, quick: str, library: str = "one") -> tuple[str, list[str]]:
    """Return which of two executors was chosen, and which were made to choose it."""
    made: list[str] = []
    makers = {
        name: lambda name=name: Sleeper(name, 0.001 if name == quick else 0.02, made) for name in ("native", "torch")
    }
    return measured.fastest(program, makers, [library]).name, made  # type: ignore[arg-type]


def test_the_fastest_is_measured_once_for_a_network_and_number_of_threads(
    program: Program, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv(CACHE, str(tmp_path / "cache"))
    assert race(program, "torch") == ("torch", ["native", "torch"])
    assert race(program, "native") == ("torch", ["torch"])  # the kept choice
    assert race(program, "native", "another engine") == ("native", ["native", "torch"])
    other = lowered(merged("Residual", "w8a8"))
    assert race(other, "native") == ("native", ["native", "torch"])
    threads = torch.get_num_threads()
    try:
        torch.set_num_threads(threads + 1)
        assert race(program, "native") == ("native", ["native", "torch"])
    finally:
        torch.set_num_threads(threads)
    assert len(json.loads((tmp_path / "cache/native/fastest.json").read_text())) == 4


@pytest.mark.parametrize("content", ["", "[1]", "{", '{"a": 1}'])
def test_a_damaged_memory_is_measured_anew(
    content: str, program: Program, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv(CACHE, str(tmp_path))
    assert race(program, "torch")[0] == "torch"
    (tmp_path / "native/fastest.json").write_text(content)
    assert race(program, "native")[0] == "native"


def test_where_nothing_can_be_kept_it_is_measured_each_time(
    program: Program, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "file").write_text("")
    monkeypatch.setenv(CACHE, str(tmp_path / "file"))
    assert race(program, "torch") == ("torch", ["native", "torch"])
    assert race(program, "native") == ("native", ["native", "torch"])
