"""The output of inspect for files of other programs and for damaged files; for the toolkit's files see tests/golden."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import torch

from engine.checkpoint import archive
from tests.conftest import assert_refused
from tests.tools.forge import packed, tiny

ROOT = Path(__file__).parents[3]


def test_a_file_of_the_originals_kind(command, workplace: Path) -> None:
    Path("a.pth").write_bytes(packed({"best_acc": 80.0, "state_dict": {"w": torch.ones(2, 3)}}, "legacy"))
    result = command("engine.checkpoint.__main__", "inspect", "a.pth")
    assert result.code == 0
    for words in ("1, with 6 numbers, all finite", "none: damage would go unnoticed", "not this toolkit's"):
        assert words in result.out
    seen = json.loads(command("engine.checkpoint.__main__", "inspect", "a.pth", "--json").out)
    assert (seen["format"], seen["checksums"], seen["tensors"], seen["numbers"]) == (None, False, 1, 6)


def test_a_damaged_file_is_exit_3(command, workplace: Path) -> None:
    whole = archive.to_bytes(tiny())
    Path("a.pth").write_bytes(whole[:1000] + bytes([whole[1000] ^ 1]) + whole[1001:])
    assert_refused(command("engine.checkpoint.__main__", "inspect", "a.pth"), 3, "a.pth: damaged")
    assert_refused(command("engine.checkpoint.__main__", "inspect", "b.pth"), 3, "b.pth: no such file")
    content = tiny()
    content["state_dict"]["linear.bias"][3] = torch.nan
    archive.save(Path("a.pth"), content)
    assert_refused(command("engine.checkpoint.__main__", "inspect", "a.pth"), 3, "linear.bias", "not finite", "[3]")


def test_a_data_set_is_named_once(command, workplace: Path) -> None:
    content = tiny()
    for label, shown in (("digits", "digits: "), ("my digits", "my digits (digits): ")):
        content["dataset"] |= {"name": "digits", "label": label}
        archive.save(Path("a.pth"), content)
        told = command("engine.checkpoint.__main__", "inspect", "a.pth").out
        assert f"\ndata set    {shown}" in told


def test_words_of_a_file_cannot_move_the_cursor(command, workplace: Path) -> None:
    content = tiny()
    content["dataset"]["label"] = "digits\x1b[2J\x9b1A"
    archive.save(Path("a.pth"), content)
    result = command("engine.checkpoint.__main__", "inspect", "a.pth")
    assert result.code == 0
    assert "digits\\x1b[2J\\x9b1A" in result.out


def test_as_a_module_it_needs_torch_only_to_read(tmp_path: Path) -> None:
    """`python -m engine.checkpoint` runs a library as a program: its --help must not import torch."""
    code = (
        "import runpy, sys\nsys.argv = ['engine.checkpoint', *sys.argv[1:]]\n"
        "try: runpy.run_module('engine.checkpoint', run_name='__main__')\n"
        "except SystemExit as end: print(end.code, 'torch' in sys.modules)"
    )
    environment = {**os.environ, "PYTHONPATH": str(ROOT)}
    for line, end in ((["inspect", "--help"], "0 False"), (["inspect"], "2 False"), (["--help"], "0 False")):
        done = subprocess.run(
            [sys.executable, "-c", code, *line],
            cwd=tmp_path,
            env=environment,
            capture_output=True,
            text=True,
            check=True,
        )
        assert done.stdout.splitlines()[-1] == end
