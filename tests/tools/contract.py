"""The contract of every written checkpoint: what it holds, and that --evaluate reproduces its accuracy."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import torch

from tests.conftest import SMALL

FAST = SMALL
CONTRACT = {"cfg", "best_acc", "state_dict", "format", "format_version", "arch", "arch_args", "transforms", "dataset",
            "metrics", "provenance"}  # fmt: skip


def contract(path: str, *stages: str) -> dict[str, Any]:
    """Check that a file keeps the contract and went through these stages; return its content."""
    content = torch.load(path, weights_only=True)
    assert content.keys() >= CONTRACT
    assert [t["stage"] for t in content["transforms"]] == list(stages)
    assert content["best_acc"] == content["metrics"]["accuracy"]
    assert (content["dataset"]["name"], content["metrics"]["pictures"]) == ("digits", 360)
    return content


def assert_judged_right(command: Callable[..., SimpleNamespace], path: str) -> None:
    """Check that --evaluate rebuilds the network from the file alone and finds the file's accuracy."""
    before = Path(path).read_bytes()
    result = command("quant.wqaq", "--evaluate", path, "--cpu", "--json")
    assert result.code == 0, result.err
    assert json.loads(result.out)["accuracy"] == torch.load(path, weights_only=True)["best_acc"]
    assert Path(path).read_bytes() == before
