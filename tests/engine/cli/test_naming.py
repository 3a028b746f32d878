"""Hints name commands in the way this command was started, which works in this folder; files record one form."""

from __future__ import annotations

import sys
from collections.abc import Callable
from types import SimpleNamespace

import pytest

from engine.cli import naming
from prune import train
from tests.conftest import assert_refused

STARTED = {
    "/usr/bin/model-compression": "model-compression",
    "C:/Scripts/model-compression.exe": "model-compression",
    "/my tools/model_compression.py": "python '/my tools/model_compression.py'",
    "/home/engine/checkpoint/__main__.py": "python -m",
    "": "python -m",
}


@pytest.mark.parametrize("program", STARTED)
def test_a_command_is_named_by_what_started_this_one(program: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys, "argv", [program, "--percent", "0.5"])
    assert naming.called("prune.gc --percent 0.4") == f"{STARTED[program]} prune.gc --percent 0.4"


@pytest.mark.parametrize(
    ("module", "argv", "code", "hint"),
    [
        ("bn_merge.__main__", (), 3, "make it with: {} quant.wbwtab --W 2 --A 2"),
        ("prune.train", ("--evaluate", "--s", "1", "-sr"), 3, "make it with: {} prune.train --s 1 -sr"),
        ("prune.train", ("--zzz",), 2, "see {} prune.train --help"),
    ],
)
def test_hints_of_the_console_script_lead_back_to_it(
    module: str, argv: tuple[str, ...], code: int, hint: str,
    command: Callable[..., SimpleNamespace], monkeypatch: pytest.MonkeyPatch,
) -> None:  # fmt: skip
    for program, start in STARTED.items():
        monkeypatch.setattr(sys, "argv", [program])
        result = command(module, *argv)
        assert_refused(result, code)
        assert result.err.splitlines()[-1] == f"hint: {hint.format(start)}"


def test_help_names_the_console_script_and_files_do_not(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys, "argv", ["/usr/bin/model-compression"])
    parser = train.parser()
    told = " ".join(parser.format_help().split())
    assert "usage: model-compression prune.train [-h]" in told
    assert "examples: model-compression prune.train model-compression prune.train -sr" in told
    assert "python -m" not in told
    assert parser.options_of(["-sr"]).words == ("python", "-m", "prune.train", "-sr")
