"""Strided 1x1 convolutions with few inputs: their gradients are right, in a process of their own (a fault would end this one)."""

from __future__ import annotations

import os
import subprocess
import sys

import torch
from torch import nn

from engine.training import onednn

CODE = """
import sys, torch
from torch import nn
from engine.training import onednn

def compare(inputs, groups):
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

for pair in sys.argv[1:]:
    print(pair, flush=True)
    compare(*map(int, pair.split(",")))
"""


def test_gradients_are_right() -> None:
    """For each pair of inputs and groups; the last one that is printed is the one at fault."""
    words = [sys.executable, "-c", CODE, "1,1", "4,1", "7,1", "15,1", "16,1", "14,2"]
    found = subprocess.run(words, capture_output=True, text=True, env={**os.environ, "OMP_NUM_THREADS": "1"})
    assert found.returncode == 0, found.stdout + found.stderr


def test_other_layers_stay_in_channels_last_memory() -> None:
    layers = [nn.Conv2d(4, 8, 1), nn.Conv2d(4, 8, 3, 2), nn.Conv2d(32, 8, 1, 2), nn.Conv2d(4, 8, 1, 2)]
    model = nn.Sequential(*layers).to(memory_format=torch.channels_last)
    onednn.spare(model)
    assert [bool(layer._forward_pre_hooks) for layer in layers] == [False, False, False, True]
