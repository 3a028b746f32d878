"""User networks of which pruning knows too little at first sight: a tensor called codes, a vector, counts of channels."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace

import pytest

from tests.conftest import SMALL

Command = Callable[..., SimpleNamespace]

CODEBOOK = """
import torch
from torch import nn

class Net(nn.Module):
    def __init__(self, classes=10):
        super().__init__()
        self.a = nn.Sequential(nn.Conv2d(3, 16, 3, padding=1), nn.BatchNorm2d(16), nn.ReLU())
        self.b = nn.Sequential(nn.Conv2d(16, 8, 3, padding=1), nn.BatchNorm2d(8))
        self.codes = nn.Parameter(torch.randn(12, 8))
        self.head = nn.Linear(12, classes)

    def forward(self, x):
        return self.head((self.b(self.a(x)).mean((2, 3)) @ self.codes.T).softmax(1))

def net(classes=10):
    return Net(classes)
"""


def test_a_tensor_of_the_code_may_be_called_codes(workplace: Path, command: Command) -> None:
    """Merged layers hold `codes` in place of a weight; a codebook is no merged layer."""
    (workplace / "book.py").write_text(CODEBOOK)
    assert command("prune.train", "-sr", "--arch", "book.py:net", *SMALL).code == 0
    pruned = command("prune.normal_regular", "--percent", "0.5", "--arch", "book.py:net", "--cpu", "--quiet")
    assert pruned.code == 0, pruned.err
    refined = command("prune.train", "--refine", "--arch", "book.py:net", *SMALL)
    assert refined.code == 0, refined.err


VECTOR = """
import torch
from torch import nn

class Net(nn.Module):
    def __init__(self, classes=10):
        super().__init__()
        self.a = nn.Sequential(nn.Conv2d(3, 16, 3, padding=1), nn.BatchNorm2d(16), nn.ReLU())
        self.b = nn.Sequential(nn.Conv2d(16, 8, 3, padding=1), nn.BatchNorm2d(8), nn.ReLU())
        self.code, self.film = nn.Parameter(torch.randn(4)), nn.Linear(4, 16)
        self.head = nn.Linear(8, classes)

    def forward(self, x):
        scale, shift = self.film(self.code).chunk(2)
        return self.head((self.b(self.a(x)).mean((2, 3)) * scale + shift))

def net(classes=10):
    return Net(classes)
"""


COUNTING = """
from torch import nn

class Net(nn.Module):
    def __init__(self, classes=10):
        super().__init__()
        self.a = nn.Sequential(nn.Conv2d(3, 16, 3, padding=1), nn.BatchNorm2d(16), nn.ReLU())
        self.b = nn.Sequential(nn.Conv2d(16, 24, 3, padding=1), nn.BatchNorm2d(24), nn.ReLU())
        self.head = nn.Linear(24, classes)

    def forward(self, x):
        x = self.a(x)
        return self.head(self.b(NUMBER).mean((2, 3)))

def net(classes=10):
    return Net(classes)
"""


@pytest.mark.parametrize("number", ["x / x.shape[1]", "x * self.a[0].out_channels ** -0.5"])
def test_layers_whose_count_the_code_computes_with_stay_whole(number: str, workplace: Path, command: Command) -> None:
    """Masked, the network computes with the old count, and cut with the new one."""
    (workplace / "count.py").write_text(COUNTING.replace("NUMBER", number))
    trained = command("prune.train", "-sr", "--arch", "count.py:net", *SMALL)
    assert "notice: a.0 will not lose channels: a narrower copy cannot be captured" in trained.err
    pruned = command("prune.normal_regular", "--percent", "0.5", "--arch", "count.py:net", "--cpu", "--json")
    assert pruned.code == 0, pruned.err
    assert "left a.0 whole" in pruned.err
    assert json.loads(pruned.out)["cfg_after"] == [16, 12]


def test_a_linear_layer_may_read_a_vector(workplace: Path, command: Command) -> None:
    (workplace / "film.py").write_text(VECTOR)
    trained = command("prune.train", "-sr", "--arch", "film.py:net", *SMALL)
    assert trained.code == 0, trained.err
    pruned = command("prune.normal_regular", "--percent", "0.3", "--arch", "film.py:net", "--cpu", "--quiet")
    assert pruned.code == 0, pruned.err
