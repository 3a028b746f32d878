"""The reader of a new data set has to return pictures and labels; anything else ends in an error that names it."""

from __future__ import annotations

from typing import Any

import pytest
import torch

from engine.data import catalogue
from engine.data.info import DataInfo
from engine.errors import BAD_DATA, UserError

INFO = DataInfo("dark", "noise", 10, 8, (0.5,) * 3, (0.25,) * 3, pad=1)
PART = (torch.zeros(4, 8, 8, 3, dtype=torch.uint8), torch.arange(4))


def part(images: Any = PART[0], labels: Any = PART[1]) -> tuple[Any, Any]:
    return images, labels


@pytest.mark.parametrize(
    ("found", "words"),
    [
        (None, "it does not return"),
        ((PART, PART), "it does not return"),
        ((PART, PART, {}), "it does not return"),
        ((PART[0], PART, INFO), "its training part is not two tensors"),
        ((part(PART[0].numpy()), PART, INFO), "its training part is not two tensors"),
        ((part(PART[0].float()), PART, INFO), r"pictures are float32 \(4, 8, 8, 3\), not uint8 \(N, 8, 8, 3\)"),
        ((part(PART[0].permute(0, 3, 1, 2)), PART, INFO), r"pictures are uint8 \(4, 3, 8, 8\)"),
        ((PART, part(PART[0][:0], PART[1][:0]), INFO), r"its test pictures are uint8 \(0, 8, 8, 3\)"),
        ((part(labels=PART[1][:3]), PART, INFO), r"its training labels are int64 \(3,\), not int64 \(4,\)"),
        ((part(labels=PART[1].int()), PART, INFO), r"its training labels are int32 \(4,\)"),
        ((PART, part(labels=PART[1] + 7), INFO), "its test labels have 10, not only 0 to 9"),
        ((PART, part(labels=PART[1] - 1), INFO), "its test labels have -1, not only 0 to 9"),
    ],
)
def test_what_a_reader_must_not_return(found: Any, words: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(catalogue.READERS, "dark", lambda root, size: found)
    with pytest.raises(UserError, match=f"the reader of --dataset dark: .*{words}") as refused:
        catalogue.load("dark", image_size=8)
    assert refused.value.code == BAD_DATA


def test_what_a_reader_may_return(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(catalogue.READERS, "dark", lambda root, size: (PART, PART, INFO))
    data = catalogue.load("dark", image_size=8)
    assert (len(data.train), len(data.test)) == (4, 4)
