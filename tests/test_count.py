"""The figures of a checkout, on a small made-up one with figures counted by hand."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from tests.tools import count

TREE = {
    "engine/__init__.py": '"""A face."""\n',
    "engine/errors.py": "class UserError(Exception):\n    pass\n",
    "engine/run.py": """
import argparse
from typing import Any
from engine.errors import UserError
def body(self, args: argparse.Namespace, content: dict[str, Any], *rest: Any) -> Any:
    import torch
    def inner():
        from engine import loop
    return content["state_dict"]
""",
    "engine/loop.py": "from argparse import Namespace\nimport engine.run\ndef fit(a, *, b=1, **c): return a.get('arch', {'cfg': 1})\n",
    "models/net.py": 'KIND = "dorefa"\nWORDS = "a ternary network", ["state_dict"]\nfrom engine import errors, run\n',
    "tests/test_run.py": "from typing import Any\nx: dict[str, Any] = {'dorefa': x['cfg']}\n",
    "setup.py": "1\n2\n",
}


@pytest.fixture
def checkout(tmp_path: Path) -> Path:
    for name, text in TREE.items():
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).write_text(text)
    return tmp_path


def test_every_figure_is_that_of_a_count_by_hand(checkout: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert count.main([str(checkout), "--json"]) == 0
    found = json.loads(capsys.readouterr().out)
    assert {key: entry["value"] for key, entry in found.items()} == {
        "import_circles": 1,
        "engine_files": 3,
        "engine_arrows": 3,  # run -> errors, run -> loop, loop -> run
        "dict_str_any": 1,
        "namespace": 2,
        "any": 4,
        "key_files": 2,
        "kind_files": 1,
        "longest_function": 5,
        "most_parameters": 3,
        "inner_imports": 2,
        "code_lines": sum(text.count("\n") for name, text in TREE.items() if not name.startswith("tests")),
        "test_lines": 2,
    }
    assert found["import_circles"]["where"] == ["engine.loop <-> engine.run"]
    assert found["key_files"]["where"] == ["engine/loop.py", "engine/run.py"]
    assert found["kind_files"]["where"] == ["models/net.py"]
    assert found["longest_function"]["where"] == ["engine/run.py:5 body"]
    assert found["most_parameters"]["where"] == ["engine/run.py:5 body"]


def test_the_table_has_a_line_for_each_figure(checkout: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert count.main([str(checkout)]) == 0
    assert capsys.readouterr().out.splitlines()[0] == "      1  import circles: engine.loop <-> engine.run"
    with pytest.raises(SystemExit) as end:
        count.main([str(checkout / "models")])
    assert end.value.code == 2
