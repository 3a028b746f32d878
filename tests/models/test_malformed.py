"""Malformed networks of a user end a command with one `error:` and one `hint:` line that name the network and the cause."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest

from engine.errors import USAGE
from tests.conftest import SMALL, assert_refused

NET = """
import torch
from torch import nn

class Net(nn.Module):
    def __init__(self, classes=10):
        super().__init__()
        self.conv, self.fc = nn.Conv2d(3, 8, 3), nn.Linear(8, classes)
        {init}

    def forward(self, x):
        return self.fc(torch.relu(self.conv(x)).mean((2, 3))){end}
    {more}
"""


@pytest.mark.parametrize(
    ("words", "change"),
    [
        ("--arch net.py:Net: net.py:9: SystemExit: 4", {"init": "raise SystemExit(4)"}),
        ("--arch net.py:Net: conv.weight is float16, not float32", {"init": "self.half()"}),
        ("--arch net.py:Net: conv.weight is float64, not float32", {"init": "self.double()"}),
        ("--arch net.py:Net: conv.weight has no values: it is on the device meta", {"init": "self.to('meta')"}),
        ("--arch net.py:Net: in evaluation it returns int64, not floats", {"end": ".long()"}),
        ("the network has no parameter to train", {"init": "self.requires_grad_(False)"}),
        ("net.py:13: KeyError: 'a'", {"more": "def state_dict(self, *args, **words): {}['a']"}),
        ("net.py:13: KeyError: 'a'", {"more": "def train(self, mode=True): {}['a']"}),
    ],
    ids=lambda value: "" if isinstance(value, str) else str(value),
)
def test_a_malformed_network(words: str, change: dict[str, str], command: Callable, workplace: Path) -> None:
    (workplace / "net.py").write_text(NET.format(**{"init": "", "end": "", "more": "", **change}))
    assert_refused(command("prune.train", "--arch", "net.py:Net", *SMALL), USAGE, words)
    assert not (workplace / "models_save").exists()


def test_networks_without_parameters_or_without_their_base(command: Callable, workplace: Path) -> None:
    bare = "from torch import nn\nclass Net(nn.Module):\n    def __init__(self, classes=10):\n        "
    end = "\n    def forward(self, x):\n        return x.mean((1, 2, 3))[:, None].repeat(1, 10)\n"
    for body, words in (
        ("pass", "--arch net.py:Net: AttributeError: "),
        ("super().__init__()", "no parameter to train"),
    ):
        (workplace / f"net_{len(body)}.py").write_text(bare + body + end)
        done = command("prune.train", "--arch", f"net_{len(body)}.py:Net", *SMALL)
        assert_refused(done, USAGE, words.replace("net.py", f"net_{len(body)}.py"))
