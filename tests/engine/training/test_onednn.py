"""Strided 1x1 convolutions with few inputs have right gradients; tested in a child process, which a fault would end."""

from __future__ import annotations

import os
import subprocess
import sys

import pytest
import torch
from torch import nn

from engine.training import onednn
from models.layers import products

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
    """Each pair of inputs and groups is printed before it runs, so the last one printed is at fault."""
    words = [sys.executable, "-c", CODE, "1,1", "4,1", "7,1", "15,1", "16,1", "14,2"]
    found = subprocess.run(words, capture_output=True, text=True, env={**os.environ, "OMP_NUM_THREADS": "1"})
    assert found.returncode == 0, found.stdout + found.stderr


def test_other_layers_stay_in_channels_last_memory() -> None:
    layers = [nn.Conv2d(4, 8, 1), nn.Conv2d(4, 8, 3, 2), nn.Conv2d(32, 8, 1, 2), nn.Conv2d(4, 8, 1, 2)]
    model = nn.Sequential(*layers).to(memory_format=torch.channels_last)
    onednn.spare(model)
    assert [bool(layer._forward_pre_hooks) for layer in layers] == [False, False, False, True]


@pytest.mark.parametrize("stride", [1, 2])
def test_depthwise_gradients_in_bf16_are_those_of_fp32(stride: int) -> None:
    """On maps smaller than the kernel, wrong memory was written: without the workaround about 8 of 100 were wrong."""
    torch.manual_seed(0)
    for _ in range(100):
        junk = [torch.full((256, 1, 3, 3), 1e20) for _ in range(8)]
        del junk
        conv = nn.Conv2d(64, 64, 3, stride, 1, groups=64, bias=False).to(memory_format=torch.channels_last)
        x = torch.randn(16, 64, 1, 1).to(memory_format=torch.channels_last).requires_grad_()
        products.convolution(conv, x.to(torch.bfloat16), conv.weight.to(torch.bfloat16)).float().sum().backward()
        weight = conv.weight.detach().double().requires_grad_()
        nn.functional.conv2d(x.detach().double(), weight, None, stride, 1, 1, 64).sum().backward()
        assert conv.weight.grad is not None
        torch.testing.assert_close(conv.weight.grad.double(), weight.grad, rtol=0.02, atol=0.5)


LAYERS = (
    lambda: nn.Conv2d(8, 8, 3, 2, 1, groups=8), lambda: nn.Conv2d(8, 8, 3, 1, 1, groups=8),
    lambda: nn.Conv2d(8, 8, 3, 2, 1), lambda: nn.Conv2d(8, 8, (3, 5), 1, (1, 2), groups=8),
    lambda: nn.Conv2d(8, 8, 5, 1, 2, groups=4), lambda: nn.Conv2d(8, 8, 5, 1, 2),
)  # fmt: skip
IN_FP32 = [True, False, False, True, False, False]


def test_strided_and_wide_depthwise_layers_leave_autocast() -> None:
    layers = [make() for make in LAYERS]
    onednn.spare(nn.Sequential(*layers))
    with torch.autocast("cpu", torch.bfloat16):
        found = [layer(torch.zeros(1, 8, 4, 4, dtype=torch.bfloat16)).dtype for layer in layers]
        assert torch.is_autocast_enabled("cpu")
    assert [dtype == torch.float32 for dtype in found] == IN_FP32


def test_autocast_is_back_after_a_fault() -> None:
    conv = nn.Conv2d(8, 8, 3, 2, 1, groups=8)
    onednn.spare(nn.Sequential(conv))
    with torch.autocast("cpu", torch.bfloat16):
        with pytest.raises(RuntimeError):
            conv(torch.zeros(1, 7, 4, 4))
        assert torch.is_autocast_enabled("cpu")


def test_codes_of_these_layers_are_multiplied_in_fp32(monkeypatch: pytest.MonkeyPatch) -> None:
    seen = []
    whole = torch.nn.functional.conv2d
    monkeypatch.setattr(products.F, "conv2d", lambda x, *rest: seen.append(x.dtype) or whole(x, *rest))
    x = torch.ones(1, 8, 4, 4, dtype=torch.bfloat16)
    for conv in (make() for make in LAYERS):
        assert products.convolution(conv, x, conv.weight.bfloat16()).dtype == torch.bfloat16
    assert [dtype == torch.float32 for dtype in seen] == IN_FP32
