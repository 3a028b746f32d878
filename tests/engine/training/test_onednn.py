"""Gradients that oneDNN gets wrong are right: of strided 1x1 convolutions with few inputs, and of taps that meet padding alone."""

from __future__ import annotations

import copy
import os
import subprocess
import sys
from collections.abc import Callable
from itertools import product
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from engine.numerics.layout import channels_last
from engine.numerics.onednn import has_idle_taps
from engine.training import bf16, onednn
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
    assert [onednn._plainly in layer._forward_pre_hooks.values() for layer in layers] == [False, False, False, True]


def junk() -> None:
    """Leave numbers behind in memory that is then free."""
    held = [torch.full((count,), 1e20) for count in (64, 432, 1024, 2304, 18432, 65536)]
    del held


IDLE: dict[str, tuple[Callable[[], nn.Module], int]] = {
    "strided": (lambda: nn.Conv2d(64, 128, 3, 2, 1, bias=False), 1),
    "depthwise": (lambda: nn.Conv2d(64, 64, 3, 1, 1, groups=64, bias=False), 1),
    "strided depthwise": (lambda: nn.Conv2d(64, 64, 3, 2, 1, groups=64, bias=False), 1),
    "5 x 5": (lambda: nn.Conv2d(128, 256, 5, 1, 2, bias=False), 1),
    "7 x 7": (lambda: nn.Conv2d(64, 64, 7, 1, "same", bias=False), 2),
    "dilated": (lambda: nn.Conv2d(16, 32, 3, 2, 4, dilation=4, bias=False), 3),
    "transposed": (lambda: nn.ConvTranspose2d(16, 32, 3, 2, 1, bias=False), 1),
    "one-dimensional": (lambda: nn.Conv1d(16, 32, 3, 2, 1, bias=False), 1),
}


@pytest.mark.parametrize("name", IDLE)
def test_gradients_in_bf16_are_those_of_fp32_where_taps_meet_padding_alone(name: str) -> None:
    """oneDNN reads memory that nobody wrote: without the workaround, some of these are wrong in most runs."""
    make, side = IDLE[name]
    torch.manual_seed(0)
    conv: Any = make()
    network = nn.Sequential(conv)
    channels_last(network)
    onednn.spare(network)
    x = torch.randn(16, conv.in_channels, *(side,) * len(conv.kernel_size))
    exact = copy.deepcopy(conv).double()
    exact(x.double()).sum().backward()
    for _ in range(20):
        junk()
        conv.weight.grad = None
        with torch.autocast("cpu", torch.bfloat16):
            network(x).sum().backward()
        torch.testing.assert_close(conv.weight.grad.double(), exact.weight.grad, rtol=0.02, atol=0.1)


@pytest.mark.parametrize("name", [name for name, (make, _) in IDLE.items() if type(make()) is nn.Conv2d])
def test_gradients_of_codes_are_right_there_too(name: str) -> None:
    make, side = IDLE[name]
    torch.manual_seed(0)
    conv: Any = make().to(memory_format=torch.channels_last)
    x = torch.randint(0, 256, (16, conv.in_channels, side, side)).float().to(memory_format=torch.channels_last)
    exact = copy.deepcopy(conv).double()
    exact(x.double()).sum().backward()
    for _ in range(20):
        junk()
        conv.weight.grad = None
        products.convolution(conv, x.to(torch.bfloat16), conv.weight.to(torch.bfloat16)).float().sum().backward()
        torch.testing.assert_close(conv.weight.grad.double(), exact.weight.grad, rtol=0.02, atol=0.5)


@pytest.mark.parametrize("name", IDLE)
def test_these_layers_leave_autocast(name: str) -> None:
    make, side = IDLE[name]
    conv: Any = make()
    network = nn.Sequential(conv)
    onednn.spare(network)
    small, large = (torch.randn(2, conv.in_channels, *(n,) * len(conv.kernel_size)) for n in (side, 16))
    with torch.autocast("cpu", torch.bfloat16):
        assert network(small).dtype == torch.float32
        slow = type(conv) is nn.Conv2d and conv.groups > 1 and max(conv.stride) > 1  # whatever the size
        assert network(large).dtype == (torch.float32 if slow else torch.bfloat16)


def test_numbers_in_fp32_leave_autocast_there_too() -> None:
    """Autocast would convert them: a segment of a float network may read such numbers."""
    conv = nn.Conv2d(8, 8, 3, 2, 1, bias=False)
    x = torch.randn(2, 8, 1, 1)
    with torch.autocast("cpu", torch.bfloat16):
        assert products.convolution(conv, x, conv.weight).dtype == torch.float32
        assert products.convolution(conv, torch.randn(2, 8, 4, 4), conv.weight).dtype == torch.bfloat16
        assert torch.is_autocast_enabled("cpu")


def test_idle_taps_are_those_that_no_number_meets() -> None:
    """Compared with a gradient in fp64: all 1, except where a tap meets padding alone."""
    found = set()
    for side, kernel, stride, padding, dilation in product(range(1, 6), (1, 2, 3, 5), (1, 2, 3), range(4), (1, 2)):
        for more in (None, 0, 1):
            kind = nn.Conv1d if more is None else nn.ConvTranspose1d
            told: dict[str, Any] = {} if more is None else {"output_padding": more}
            conv: Any = kind(1, 1, kernel, stride, padding, dilation=dilation, bias=False, **told).double()
            try:
                conv(torch.ones(1, 1, side, dtype=torch.float64)).sum().backward()
            except (RuntimeError, ValueError):  # no result, or an output padding that is too large
                continue
            idle = bool((conv.weight.grad == 0).any())
            assert (
                has_idle_taps(
                    (side,),
                    (kernel,),
                    (stride,),
                    (padding,),
                    (dilation,),
                    (padding,),
                    None if more is None else (more,),
                )
                == idle
            )
            found.add((more is None, idle))
    assert len(found) == 4


class Called(nn.Module):
    """A convolution that is a call, with a computed weight."""

    def __init__(self) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.randn(8, 3, 3, 3))

    def forward(self, x: Tensor) -> Tensor:
        return nn.functional.conv2d(x, self.weight * 2, stride=2, padding=1)


def test_a_call_with_idle_taps_keeps_its_network_in_fp32() -> None:
    device = torch.device("cpu")
    assert "taps of a convolution meet padding alone" in bf16.refusal(Called(), (3, 1, 1), device)
    assert bf16.refusal(Called(), (3, 4, 4), device) == ""
    blurred = Called()
    blurred.weight.requires_grad_(False)  # no gradient, no fault
    assert bf16.refusal(nn.Sequential(nn.Conv2d(3, 3, 1), blurred), (3, 1, 1), device) == ""


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
