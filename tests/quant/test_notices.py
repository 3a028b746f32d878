"""Notices about a network before it is quantized are correct."""

from __future__ import annotations

import pytest
import torch
from torch import nn

from quant import notices
from quant.placement import meet
from quant.prepare import prepare
from quant.spec import affine_spec
from tests.tools.networks import captured


def test_norms_that_stay_are_told_apart_by_why(capsys: pytest.CaptureFixture[str]) -> None:
    """The three norms belong to a layer kept float, to a linear layer, and to a sum."""

    class Net(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.kept, self.one = nn.Conv2d(3, 8, 3), nn.BatchNorm2d(8)
            self.folded, self.two, self.of_sum = nn.Conv2d(8, 8, 1), nn.BatchNorm2d(8), nn.BatchNorm2d(8)
            self.fc, self.three, self.head = nn.Linear(8, 6), nn.BatchNorm1d(6), nn.Linear(6, 10)

        def forward(self, x: torch.Tensor) -> torch.Tensor:
            x = self.one(self.kept(x)).relu()
            x = self.of_sum(x + self.two(self.folded(x)))
            return self.head(self.three(self.fc(x.mean((2, 3)))).relu())

    form = captured(Net())
    spec = meet(affine_spec(8, 8, 1, True), form, ["kept"])
    notices.say(form, prepare(form, spec), spec)
    said = capsys.readouterr().err
    assert "notice: kept 1 batch norm, not directly behind one convolution or linear layer: of_sum\n" in said
    assert (
        "notice: kept 2 batch norms, behind a layer that stays float, is linear, or is pooled first: one, three\n"
        in said
    )


def test_norms_that_cannot_be_folded_say_why(capsys: pytest.CaptureFixture[str]) -> None:
    made = nn.Sequential(
        nn.Conv2d(3, 8, 3), nn.BatchNorm2d(8, track_running_stats=False), nn.ConvTranspose2d(8, 8, 2), nn.BatchNorm2d(8),
        nn.Flatten(2), nn.Conv1d(8, 8, 3), nn.BatchNorm1d(8), nn.AdaptiveAvgPool1d(1), nn.Flatten(), nn.Linear(8, 10),
    )  # fmt: skip
    form = captured(made)
    capsys.readouterr()
    notices.say_unfolded(form)
    assert capsys.readouterr().err == (
        "notice: kept 1 batch norm, keeping no statistics: 1\nnotice: kept 1 batch norm, behind a transposed convolution: 3\n"
        "notice: kept 1 batch norm, behind a convolution of one or three dimensions: 6\n"
    )
