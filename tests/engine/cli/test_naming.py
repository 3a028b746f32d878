"""Hints name commands in the way this command was started, which works in this folder; files record one form."""

from __future__ import annotations

import ast
import sys
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
from safetensors.numpy import save_file

from engine.checkpoint import archive
from engine.cli import naming
from prune import train
from tests.conftest import assert_refused
from tests.tools.house import sources, tree

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


def _strings(name: str) -> list[str]:
    """Return a module's strings that are no docstrings."""
    said = {id(node.value) for node in ast.walk(tree(name)) if isinstance(node, ast.Expr)}
    found = [node for node in ast.walk(tree(name)) if isinstance(node, ast.Constant) and id(node) not in said]
    return [node.value for node in found if isinstance(node.value, str)]


def test_only_this_module_writes_how_a_command_starts() -> None:
    """`python -m` is wrong under the console script, and in a folder with the user's own `quant/`."""
    assert {name for name in sources() if any("python -m" in each for each in _strings(name))} == {naming.__name__}


def test_hints_of_packed_files_name_the_console_script(
    command: Callable[..., SimpleNamespace], monkeypatch: pytest.MonkeyPatch, workplace: Path
) -> None:
    monkeypatch.setattr(sys, "argv", ["/usr/bin/model-compression"])
    for name, again in (
        ("a b.pth", "make one: model-compression deploy.pack --model 'a b.pth'"),
        ("a.txt", "make one: model-compression deploy.pack"),
        ("a.safetensors", "copy the file again, or make it again: model-compression deploy.pack"),
    ):
        Path(name).write_bytes(b"no file of ours")
        result = command("deploy.run", "--model", name, "--evaluate")
        assert_refused(result, 3)
        assert result.err.splitlines()[-1] == f"hint: {again}"
    save_file({name: np.zeros(1, np.uint8) for name in archive.PACKED}, "a b.safetensors")
    result = command("prune.train", "--weights", "a b.safetensors", "--dataset", "digits")
    assert_refused(result, 3, "a packed file")
    assert result.err.splitlines()[-1].endswith("with: model-compression deploy.pack --inspect 'a b.safetensors'")


def test_help_names_the_console_script_and_files_do_not(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys, "argv", ["/usr/bin/model-compression"])
    parser = train.parser()
    told = " ".join(parser.format_help().split())
    assert "usage: model-compression prune.train [-h]" in told
    assert "examples: model-compression prune.train model-compression prune.train -sr" in told
    assert "python -m" not in told
    assert parser.options_of(["-sr"]).words == ("python", "-m", "prune.train", "-sr")
