"""Scores in words."""

from __future__ import annotations

from dataclasses import replace
from types import SimpleNamespace
from typing import Any

from engine.data.info import DataInfo
from engine.tasks.classification import CLASSIFICATION
from engine.training.judging import in_words


def test_a_score_in_words() -> None:
    info = DataInfo("digits", "the digits", 10, 8, (0.5,) * 3, (0.25,) * 3)
    data: Any = SimpleNamespace(info=info, test=range(1360), part="val")
    assert in_words(CLASSIFICATION, 98.304, data) == "val accuracy 98.30 % on the digits (1,360 pictures)"
    own: Any = SimpleNamespace(info=replace(info, name="imagefolder", label="pictures"), test=range(20), part="test")
    assert in_words(CLASSIFICATION, 50.0, own) == 'test accuracy 50.00 % on "pictures" (20 pictures)'
    assert (
        in_words(CLASSIFICATION, 0.0, data, before=98.9)
        == "val accuracy 98.90 % -> 0.00 % on the digits (1,360 pictures)"
    )
