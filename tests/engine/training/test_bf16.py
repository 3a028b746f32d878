"""A network with an operation that fails in bf16 trains in fp32, and says so; bf16 that is asked for by name is refused."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from torch import Tensor, nn

from engine.data.info import DataInfo
from engine.errors import UserError
from engine.numerics import precision
from engine.training import bf16
from tests.conftest import SMALL

INFO = DataInfo("dark", "noise", 10, 8, (0.5,) * 3, (0.25,) * 3, pad=1)
CPU = torch.device("cpu")
MIXED = """
import torch
from torch import nn


class Mixed(nn.Module):
    def __init__(self):
        super().__init__()
        self.conv, self.norm, self.head = nn.Conv2d(3, 8, 3), nn.BatchNorm2d(8), nn.Linear(8, 10)
        self.row = nn.Parameter(torch.randn(8))

    def forward(self, x):
        x = self.norm(self.conv(x))
        scale = torch.dot(self.row, self.head.weight @ self.row @ self.head.weight)
        return self.head((x * scale).mean((2, 3)))


def net():
    return Mixed()
"""


class Mixed(nn.Module):
    """torch.dot takes two vectors of one type, but under autocast a product is in bf16 and a parameter in fp32."""

    def __init__(self, wrong: bool = True) -> None:
        super().__init__()
        self.conv, self.norm, self.drop = nn.Conv2d(3, 8, 3), nn.BatchNorm2d(8), nn.Dropout(0.5)
        self.row, self.wrong = nn.Parameter(torch.randn(8)), wrong

    def forward(self, x: Tensor) -> Tensor:
        x = self.drop(self.norm(self.conv(x)))
        square = torch.eye(8) @ self.row
        return x.mean((2, 3)) * (torch.dot(self.row, square) if self.wrong else square)


@pytest.fixture(autouse=True)
def with_bf16(monkeypatch: pytest.MonkeyPatch) -> None:
    """Autocast computes in bf16 on any CPU; only `auto` asks whether the CPU is fast at it."""
    monkeypatch.setattr(precision, "has_bf16", lambda device: True)


def test_auto_takes_bf16_where_a_step_runs_in_it() -> None:
    assert bf16.settled("auto", Mixed(wrong=False), INFO, CPU, codes=False) == "bf16"


def test_auto_takes_fp32_where_an_operation_fails(capsys: pytest.CaptureFixture[str]) -> None:
    assert bf16.settled("auto", Mixed(), INFO, CPU, codes=False) == "fp32"
    assert (
        "notice: training runs in fp32, because an operation of the network fails in bf16: " in capsys.readouterr().err
    )
    assert bf16.settled("auto", Mixed(), INFO, CPU, codes=True) == "bf16"  # only products of codes are in bf16 there


def test_bf16_by_name_is_refused_where_an_operation_fails() -> None:
    with pytest.raises(UserError, match=r"^--precision bf16: an operation of the network fails in bf16: ") as refused:
        bf16.settled("bf16", Mixed(), INFO, CPU, codes=False)
    assert refused.value.code == 2


@pytest.mark.parametrize("wrong", [False, True])
def test_the_network_and_the_random_numbers_stay(wrong: bool) -> None:
    network = Mixed(wrong).eval()
    before, draws = {name: value.clone() for name, value in network.state_dict().items()}, torch.get_rng_state()
    assert bool(bf16.refusal(network, (3, 8, 8), CPU)) == wrong
    assert all(torch.equal(before[name], value) for name, value in network.state_dict().items())
    assert torch.equal(draws, torch.get_rng_state())
    assert not network.training
    assert all(p.grad is None for p in network.parameters())


def test_an_error_of_any_precision_is_left_to_training() -> None:
    class Wrong(Mixed):
        def forward(self, x: Tensor) -> Tensor:
            raise ValueError("in training it takes targets, too")

    assert bf16.refusal(Wrong(), (3, 8, 8), CPU) == ""


def test_memory_that_runs_out_is_no_refusal() -> None:
    class Large(Mixed):
        def forward(self, x: Tensor) -> Tensor:
            raise MemoryError

    with pytest.raises(MemoryError):
        bf16.refusal(Large(), (3, 8, 8), CPU)


def test_the_command_trains_such_a_network(command: Callable) -> None:
    Path("mixed.py").write_text(MIXED)
    done = command("prune.train", "--arch", "mixed.py:net", *SMALL[:-1], "auto")
    assert done.code == 0, done.err
    assert "notice: training runs in fp32" in done.err
