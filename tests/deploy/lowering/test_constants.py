"""Values that depend on no picture are tensors of a program, also where code lays them out for each picture."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from bn_merge.merge import merge
from deploy.lowering.constants import with_constants
from deploy.operations.functions import Constant
from engine.errors import UserError
from models.graph.capture.form import capture
from tests.deploy.lowering.calling import Call, assert_same, captured, lowered, network
from tests.deploy.quantized import SIDE, SPECS, trained
from tests.tools.cases import conv_bn


def coordinates(s: Any, x: Tensor) -> Tensor:
    b, _, h, w = x.shape
    rows = torch.linspace(-1, 1, h).view(1, 1, h, 1).expand(b, 1, h, w)
    columns = torch.linspace(-1, 1, w).view(1, 1, 1, w).expand(b, -1, h, -1)
    return torch.cat([x, rows, columns], 1)


def waves(s: Any, x: Tensor) -> Tensor:
    """Codes of places through layers of the network, as in EdgeNeXt."""
    b, _, h, w = x.shape
    places = (1 - torch.zeros((b, h, w), dtype=x.dtype)).cumsum(1)
    return x + F.conv2d(torch.stack([places.sin(), places.cos()], 1), s.map[:, :2, None, None])


def windows(s: Any, x: Tensor) -> Tensor:
    """A mask that is written in place, as in Swin."""
    mask = x.new_zeros((8, 8))
    for number, rows in enumerate((slice(0, 3), slice(3, 8))):
        mask[rows, number:] = number + 1
    apart = mask.view(2, 4, 2, 4).permute(0, 2, 1, 3).reshape(4, 16)
    apart = apart.unsqueeze(1) - apart.unsqueeze(2)
    apart = apart.masked_fill(apart != 0, -100.0).masked_fill(apart == 0, 0.0)
    return x * apart.mean() + F.softmax(apart, -1).mean(0)[:8, :8]


def cleared(s: Any, x: Tensor) -> Tensor:
    """A part of a copy of the network's tensor is set to 0, as in Swin v2."""
    shift = s.row.clone()
    shift[2:4].zero_()
    return F.linear(x, s.map, shift)


def cleared_between_reads(s: Any, x: Tensor) -> Tensor:
    shift = s.column.clone()
    before = x * shift
    shift[2:4].zero_()
    return before + x * shift + torch.zeros(x.shape[0], 8, 8, 8)


def views_written_twice(s: Any, x: Tensor) -> Tensor:
    whole = torch.zeros(8, 8)
    rows = whole[2:4]
    rows.add_(1)
    before = x[:, :, 2:4] * rows
    rows.mul_(2)
    return x * whole + F.pad(before, (0, 0, 0, 6))


def written_with_pictures(s: Any, x: Tensor) -> Tensor:
    found = torch.zeros_like(x)
    found[:, ::2] = x[:, ::2]
    return found + x


def written_between_reads(s: Any, x: Tensor) -> Tensor:
    factor = torch.zeros(x.shape[0], 8, 8, 8)
    before = factor * x
    factor[:, ::2] = 2.0
    return before + factor


KEPT: dict[str, Call] = {
    "coordinates": coordinates, "waves": waves, "windows": windows, "cleared": cleared, "cleared between reads": cleared_between_reads,
    "views written twice": views_written_twice, "written with pictures": written_with_pictures,
    "written between reads": written_between_reads,
    "repeated": lambda s, x: x + s.all.repeat(x.shape[0], 1, 1, 1),
    "a token": lambda s, x: torch.cat([s.map[None].expand(x.shape[0], -1, -1), x.flatten(2)], 2),
    "zeros": lambda s, x: torch.cat([x, torch.zeros_like(x)[:, :2]], 1),
    "a bound": lambda s, x: torch.maximum(x, torch.full_like(x, 0.25)),
}  # fmt: skip


@pytest.mark.parametrize("name", KEPT)
def test_they_become_constants(name: str) -> None:
    made = network(KEPT[name])
    assert_same(lowered(captured(made)), made)


def changed_with_pictures(s: Any, x: Tensor) -> Tensor:
    found = torch.ones_like(x)
    found[:, :2].pow_(x[:, :2])
    return found + x


def changed_between_reads(s: Any, x: Tensor) -> Tensor:
    factor = torch.ones(x.shape[0], 8, 8, 8)
    before = factor * x
    factor[:, :2].pow_(2.0)
    return before + factor


REFUSED: dict[str, tuple[Call, str]] = {
    "a count": (lambda s, x: x * torch.ones(x.shape[0]).sum(), "inner.ones"),
    "a share": (lambda s, x: x * (torch.ones(x.shape[0], 1, 1, 1) / x.shape[0]), "inner.ones"),
    "of the third picture": (
        lambda s, x: x * (1 + F.relu(torch.arange(x.shape[0]) - 1.0)).view(-1, 1, 1, 1),
        "inner.arange",
    ),
    "of each picture": (lambda s, x: x * torch.arange(x.shape[0]).view(-1, 1, 1, 1), "inner.arange"),
    "random": (lambda s, x: x * torch.rand(x.shape[0], 1, 1, 1), "inner.rand"),
    "changed with pictures": (changed_with_pictures, "inner.ones_like"),
    "changed between reads": (changed_between_reads, "inner.ones"),
}


@pytest.mark.parametrize("name", REFUSED)
def test_others_are_refused_by_name(name: str) -> None:
    call, where = REFUSED[name]
    with pytest.raises(UserError, match=where):
        lowered(captured(network(call)))


def test_a_value_is_computed_once_and_in_training_as_before() -> None:
    form = captured(network(waves))
    before = {*form.state_dict()}, [node.name for node in form.captured.graph.nodes]
    made = with_constants(form)
    assert ({*form.state_dict()}, [node.name for node in form.captured.graph.nodes]) == before
    assert [type(op) for op in lowered(form).operations].count(Constant) == 1
    assert [node.op for node in made.captured.graph.nodes].count("get_attr") == 1


@pytest.mark.parametrize("kind", ["w8a8", "lsq", "int8", "int8 folded", "wbab bacp", "wta8"])
def test_quantized_networks_without_a_float_parameter(kind: str) -> None:
    made = nn.Sequential(
        conv_bn(3, 8, 3, 2), network(coordinates).inner, conv_bn(10, 16, 3, 2), nn.Flatten(), nn.Linear(256, 10)
    )
    merged = merge(trained(capture(made.eval(), (3, SIDE, SIDE), "a test", check=False), SPECS[kind]))
    assert any(isinstance(op, Constant) for op in lowered(merged).operations)


def test_other_networks_stay_as_they_are() -> None:
    form = captured(network(nn.Sequential(nn.ReLU(), nn.BatchNorm2d(8))))
    assert with_constants(form) is form
