"""Channels-last memory: tensors with 4 axes take it, all others stay, and nothing changes its value."""

from __future__ import annotations

import copy

import torch
from torch import nn

from engine.numerics.layout import channels_last


def test_only_tensors_with_four_axes_change_their_order() -> None:
    net = nn.ModuleDict({"flat": nn.Conv2d(4, 6, 3), "deep": nn.Conv3d(4, 6, 3), "line": nn.Conv1d(4, 6, 3)})
    net.register_buffer("codes", torch.zeros(2, 3, 4, 5, dtype=torch.uint8))
    before, parameters = copy.deepcopy(net.state_dict()), [*net.parameters()]
    assert channels_last(net) is net
    assert all(one is other for one, other in zip(parameters, net.parameters(), strict=True))  # an optimizer holds them
    for name, tensor in net.state_dict().items():
        assert torch.equal(tensor, before[name])
        assert tensor.is_contiguous() is (tensor.ndim != 4)
        assert tensor.ndim != 4 or tensor.is_contiguous(memory_format=torch.channels_last)
