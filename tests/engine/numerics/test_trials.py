"""A trial run leaves a network's parameters, buffers and attributes as they were, whatever the code does to them."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import nn

from engine.numerics import trials


class Net(nn.Module):
    """A parameter, another one whose numbers share memory, a buffer, and a parameter that the code makes later."""

    def __init__(self) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.arange(12.0).reshape(3, 4))
        self.shared = nn.Parameter(torch.ones(1, 1).expand(1, 4))
        self.register_buffer("seen", torch.zeros(2))
        self.register_parameter("later", None)


CHANGES: dict[str, Callable[[Any], Any]] = {
    "in place": lambda net: net.weight.data.mul_(2),
    "under no_grad": lambda net: net.seen.add_(1),
    "other memory": lambda net: setattr(net.weight, "data", net.weight.data * 2),
    "a part of it": lambda net: setattr(net.weight, "data", net.weight.data[:2]),
    "turned": lambda net: setattr(net.weight, "data", net.weight.data.t()),
    "another tensor": lambda net: net._parameters.update(weight=nn.Parameter(torch.zeros(3, 4))),
    "a number that is none": lambda net: net.weight.data.fill_(float("nan")),
}


@pytest.mark.parametrize("name", CHANGES)
def test_a_change_is_named_and_undone(name: str) -> None:
    net = Net()
    held, memory = dict(trials.tensors(net)), {key: t.data_ptr() for key, t in trials.tensors(net)}
    with trials.kept(net) as before:
        assert trials.changed(net, before) == []
        with torch.no_grad():
            CHANGES[name](net)
        assert trials.changed(net, before) == ["seen" if "no_grad" in name else "weight"]
    assert all(now is held[key] for key, now in trials.tensors(net))
    assert {key: t.data_ptr() for key, t in trials.tensors(net)} == memory
    assert torch.equal(net.weight.detach(), torch.arange(12.0).reshape(3, 4))
    assert torch.equal(net.seen, torch.zeros(2))


def test_a_parameter_that_the_first_run_makes_stays() -> None:
    net = Net()
    with trials.kept(net) as before:
        net.later = nn.Parameter(torch.ones(2))
        assert trials.changed(net, before) == []
    assert net.later is not None


def test_tensors_without_a_shape_are_left_alone() -> None:
    net = nn.Sequential(nn.LazyConv2d(4, 1), nn.LazyBatchNorm2d())
    with trials.kept(net) as before:
        assert [*before] == ["1.num_batches_tracked"]
