"""Strided 1x1 convolutions with few inputs: their gradients are right, in processes of their own (a fault would end this one)."""

from __future__ import annotations

import os
import subprocess
import sys

import pytest
import torch
from torch import nn

from engine.training import onednn

CODE = """
import sys, torch
from torch import nn
from engine.training import onednn

inputs, groups = map(int, sys.argv[1:])
torch.manual_seed(0)
first, conv = nn.Conv2d(3, inputs, 1), nn.Conv2d(inputs, 16, 1, 2, groups=groups, bias=False)
model = nn.Sequential(first, conv).to(memory_format=torch.channels_last)
exact = nn.Sequential(nn.Conv2d(3, inputs, 1), nn.Conv2d(inputs, 16, 1, 2, groups=groups, bias=False)).double()
exact.load_state_dict(model.state_dict())
onednn.spare(model)
x = torch.randn(8, 3, 16, 16)
model(x.to(memory_format=torch.channels_last)).square().sum().backward()
exact(x.double()).square().sum().backward()
for a, b in zip(model.parameters(), exact.parameters()):
    assert (a.grad - b.grad).abs().max() <= 1e-5 * b.grad.abs().max()
"""


@pytest.mark.parametrize(("inputs", "groups"), [(1, 1), (4, 1), (7, 1), (15, 1), (16, 1), (14, 2)])
def test_gradients_are_right(inputs: int, groups: int) -> None:
    words = [sys.executable, "-c", CODE, str(inputs), str(groups)]
    found = subprocess.run(words, capture_output=True, text=True, env={**os.environ, "OMP_NUM_THREADS": "1"})
    assert found.returncode == 0, found.stderr


def test_other_layers_stay_in_channels_last_memory() -> None:
    layers = [nn.Conv2d(4, 8, 1), nn.Conv2d(4, 8, 3, 2), nn.Conv2d(32, 8, 1, 2), nn.Conv2d(4, 8, 1, 2)]
    model = nn.Sequential(*layers).to(memory_format=torch.channels_last)
    onednn.spare(model)
    assert [bool(layer._forward_pre_hooks) for layer in layers] == [False, False, False, True]
