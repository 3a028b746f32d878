"""--profile and --eval_every of training commands."""

from __future__ import annotations

import csv
import json
from collections.abc import Callable
from pathlib import Path

from tests.tools.contract import FAST


def test_a_trace_of_some_steps_is_written(refined: Callable) -> None:
    more = ("--run_dir", "run", "--save", "out.pth", "--profile", "--eval_every", "2", "--epochs", "3")
    done = refined("prune.train", "--refine", *FAST, *more)
    assert done.code == 0, done.err
    names = {event["name"] for event in json.loads(Path("run/trace.json").read_text())["traceEvents"]}
    assert any("convolution_backward" in name for name in names)
    with Path("run/metrics.csv").open() as file:
        rows = [*csv.DictReader(file)]
    assert [bool(row["test_accuracy"]) for row in rows] == [False, True, True]
