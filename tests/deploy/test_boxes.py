"""Boxes of a packed detector: those that cannot be boxes are neither listed nor drawn."""

from __future__ import annotations

import json
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from PIL import Image
from torch import Tensor

from deploy import boxes, drawing
from engine.data.info import DataInfo

NAN, INFINITE = float("nan"), float("inf")
ROWS = [[1.0, 1, 5, 5], [NAN, 1, 5, 5], [1, 1, INFINITE, 5], [5, 1, 1, 5], [1, 1, 5, 5], [1, 1, 5, 5], [2, 2, 2, 6]]
SCORES = [0.9, 0.9, 0.9, 0.9, NAN, INFINITE, 0.8]


class Shell:
    side = 8

    def boxes(self, output: Tensor) -> list[dict[str, Tensor]]:
        one = {"boxes": torch.tensor(ROWS), "labels": torch.zeros(7, dtype=torch.int64), "scores": torch.tensor(SCORES)}
        return [one] * len(output)


def test_what_cannot_be_a_box_is_left_out_and_counted(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    paths = [tmp_path / "a.png", tmp_path / "b.png"]
    for path in paths:
        Image.new("RGB", (16, 8)).save(path)
    info = DataInfo("scenes", "scenes", 1, 8, (0.5,) * 3, (0.5,) * 3, names=("ant",), task="detection")
    shell: Any = Shell()
    found = boxes.found(lambda x: x, shell, SimpleNamespace(dataset=info), paths, 0.3, 1)  # type: ignore[arg-type]
    assert [one.box for one in found[1].boxes] == [(2, 1, 10, 5), (4, 2, 4, 6)]
    assert json.loads(json.dumps(found[1].to_dict(), allow_nan=False))["boxes"][0] == {
        "name": "ant", "score": pytest.approx(0.9), "box": [2, 1, 10, 5],
    }  # fmt: skip
    assert capsys.readouterr().err.startswith("notice: boxes left out: 10, ")
    drawing.draw(found[0], tmp_path / "drawn.png")
    assert (tmp_path / "drawn.png").is_file()
