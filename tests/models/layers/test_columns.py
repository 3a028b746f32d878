"""A convolution as a matrix product equals the convolution."""

from __future__ import annotations

import pytest
import torch
from torch import nn

from models.layers import columns, products

CONVS = (
    nn.Conv2d(3, 7, 5, padding=2, bias=False),
    nn.Conv2d(1, 4, 3, stride=2, padding=(1, 0), bias=False),
    nn.Conv2d(4, 5, (2, 3), stride=(1, 2), bias=False),
)


@pytest.mark.parametrize("conv", CONVS, ids=str)
def test_values_gradients_and_memory(conv: nn.Conv2d) -> None:
    x = torch.randn(2, conv.in_channels, 9, 8).contiguous(memory_format=torch.channels_last)
    found, wanted = columns.convolution(conv, x, conv.weight), conv(x)
    torch.testing.assert_close(found, wanted)
    assert found.is_contiguous(memory_format=torch.channels_last)
    g = torch.randn_like(wanted)
    of_weight = [torch.autograd.grad(value, conv.weight, g)[0] for value in (found, wanted)]
    torch.testing.assert_close(*of_weight)


def test_under_autocast_it_is_bf16() -> None:
    x = torch.randn(2, 3, 9, 8)
    with torch.autocast("cpu", torch.bfloat16):
        assert columns.convolution(CONVS[0], x, CONVS[0].weight).dtype == torch.bfloat16


def test_a_cpu_has_its_own() -> None:
    assert not columns.fits(CONVS[0], torch.zeros(1, 3, 8, 8))
    assert columns.spare(torch.zeros(1, 3, 8, 8), CONVS[0].weight, 1) == 0


def test_filters_of_zeros_fill_the_last_block_of_outputs(monkeypatch: pytest.MonkeyPatch) -> None:
    """This happens on a GPU: outputs and gradients belong to the real filters only."""
    monkeypatch.setattr(columns, "spare", lambda x, weight, groups: -len(weight) % columns.BLOCK)
    conv, x = nn.Conv2d(6, 10, 3, padding=1, bias=False).double(), torch.randn(2, 6, 5, 5).double().requires_grad_()
    found, wanted = products.convolution(conv, x, conv.weight), conv(x)
    assert found.shape == wanted.shape
    g = torch.randn_like(wanted)
    of = [(value, *torch.autograd.grad(value, (x, conv.weight), g)) for value in (found, wanted)]
    torch.testing.assert_close(*of)
