"""Code that writes into parts of a value: the capture computes the same, without writing."""

from __future__ import annotations

import random
from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from models.graph import calls
from models.graph.capture.form import capture
from models.graph.channels.classes import channels
from models.graph.normal import NormalForm

Code = Callable[[Any, Tensor], Tensor]


class Net(nn.Module):
    """A convolution and a norm, a user's code on 8 channels, and a head."""

    def __init__(self, code: Code) -> None:
        super().__init__()
        self.code = code
        self.stem, self.norm = nn.Conv2d(3, 8, 3, padding=1), nn.BatchNorm2d(8)
        self.part, self.head = nn.Conv2d(3, 3, 3, padding=1, bias=False), nn.Conv2d(8, 5, 1)

    def forward(self, x: Tensor) -> Tensor:
        return self.head(self.code(self, self.norm(self.stem(x)).relu())).mean((2, 3))


def net(code: Code) -> nn.Module:
    torch.manual_seed(0)
    return Net(code).eval()


def captured(made: nn.Module) -> NormalForm:
    return capture(made, (3, 6, 6), "a test")


def pictures() -> Tensor:
    return torch.randn(3, 3, 6, 6, generator=torch.Generator().manual_seed(1))


def sliced(net: Any, x: Tensor) -> Tensor:
    """As FasterNet in evaluation."""
    x = x.clone()
    x[:, :3] = net.part(x[:, :3])
    return x


def filled(net: Any, x: Tensor) -> Tensor:
    out = torch.zeros(x.shape[0], 8, x.shape[2], x.shape[3], device=x.device, dtype=x.dtype)
    out[:, :3] = net.part(x[:, :3])
    out[:, 3:] = x[:, 3:]
    return out


def halves(net: Any, x: Tensor) -> Tensor:
    x = x * 1
    one, other = x[:, :4], x[:, 4:]
    one.mul_(2).add_(1)
    other += one
    return x


def rows(net: Any, x: Tensor) -> Tensor:
    x = x.clone()
    x[:, :, 0] = 0
    x[..., 1:-1, -1] = x[..., 1:-1, 0]
    x[:, 2] *= 3
    x[:, 4].zero_()
    return x


def seen_from_elsewhere(net: Any, x: Tensor) -> Tensor:
    x = x.clone()
    turned = x.transpose(1, 2)
    before = turned * 1
    x[:, 1:3] -= 4
    return x + turned.transpose(1, 2) * 0.5 + before.transpose(1, 2)


def copied(net: Any, x: Tensor) -> Tensor:
    x = x.clone()
    x[:, :3].copy_(x[:, 3:6], non_blocking=True)
    return x


def squared(net: Any, x: Tensor) -> Tensor:
    x = x.clone()
    x[:, :2].pow_(2)
    return x


def viewed(net: Any, x: Tensor) -> Tensor:
    x = x.clone()
    part = x[:, :4]
    part.unsqueeze_(1)
    part *= 2
    return x


def widened(net: Any, x: Tensor) -> Tensor:
    x = x.clone()
    x[:, :4] += torch.ones(6, 6, dtype=torch.float64, device=x.device)
    return x


def truths(net: Any, x: Tensor) -> Tensor:
    known = x > 0
    known[:, 0].fill_(torch.tensor(5))
    return x * ~known


def woven(net: Any, x: Tensor) -> Tensor:
    out = torch.empty_like(x)
    out[:, ::2] = x[:, :4]
    out[:, 1::2] = x[:, 4:] * 2
    return out


def quartered(net: Any, x: Tensor) -> Tensor:
    """Fill the four pixels of each square, as an inverse wavelet does; one of them twice."""
    out = torch.zeros_like(x)
    out[:, :, ::2, ::2] = x[:, :, :3, :3]
    out[:, :, 1::2, ::2] = x[:, :, 3:, :3] * 2
    out[:, :, ::2, 1::2] = x[:, :, :3, 3:]
    out[:, :, 1::2, 1::2] -= 1
    out[:, :, ::2, ::2] += x[:, :, 3:, 3:]
    return out


def checkered(net: Any, x: Tensor) -> Tensor:
    x = x.clone()
    x[..., 1:5:2] *= 2
    x[:, 3, ::3] = 1
    return x


def masked(net: Any, x: Tensor) -> Tensor:
    x = x - 0.5
    x[x < 0] = 0
    x[:, 2:][x[:, 2:] > 1] = 1
    x[x.mean((2, 3)) > 0.5] = 3
    return x


def listed(net: Any, x: Tensor) -> Tensor:
    x = x.clone()
    x[:, [0, 3]] = 1
    x[x > 1] = x[x > 1] * 2
    return x


@pytest.mark.parametrize("code", [squared, viewed, widened, truths])
@torch.no_grad()
def test_other_writes_stay_and_compute_the_same(code: Code) -> None:
    made = net(code)
    form = captured(made)
    assert any(calls.changes(node) for node in form.captured.graph.nodes)
    assert torch.equal(form(pictures()), made(pictures()))


CODES: dict[str, Code] = {
    code.__name__: code
    for code in (sliced, filled, halves, rows, seen_from_elsewhere, copied, woven, quartered, checkered, masked)
}


@pytest.mark.parametrize("name", CODES)
@torch.no_grad()
def test_a_capture_computes_the_same_without_writing(name: str) -> None:
    made = net(CODES[name])
    form = captured(made)
    assert not any(calls.changes(node) for node in form.captured.graph.nodes)
    assert torch.equal(form(pictures()), made(pictures()))


@pytest.mark.parametrize("name", ["sliced", "filled"])
def test_it_trains_with_the_gradient_of_the_joined_parts(name: str) -> None:
    joined = net(lambda net, x: torch.cat([net.part(x[:, :3]), x[:, 3:]], 1)).train()
    form = captured(net(CODES[name])).train()
    for each in (joined, form):
        each(pictures()).square().sum().backward()
    for kind in ("stem", "norm", "part", "head"):
        torch.testing.assert_close(getattr(form, kind).weight.grad, getattr(joined, kind).weight.grad)


def test_woven_parts_take_few_calls() -> None:
    calls = [node.target for node in captured(net(woven)).captured.graph.nodes if node.op == "call_function"]
    assert calls.count(torch.ops.aten.stack.default) == 1
    assert len(calls) < 12


def test_woven_parts_train_with_the_gradient_of_their_places() -> None:
    joined = net(lambda net, x: torch.stack([x[:, :4], x[:, 4:] * 2], 2).flatten(1, 2)).train()
    form = captured(net(woven)).train()
    for each in (joined, form):
        each(pictures()).square().sum().backward()
    for kind in ("stem", "norm", "head"):
        torch.testing.assert_close(getattr(form, kind).weight.grad, getattr(joined, kind).weight.grad)


@pytest.mark.parametrize("name", ["sliced", "filled"])
def test_its_channels_are_those_of_the_joined_parts(name: str) -> None:
    joined = net(lambda net, x: torch.cat([net.part(x[:, :3]), x[:, 3:]], 1))
    found, expected = (channels(captured(each)) for each in (net(CODES[name]), joined))
    assert found.fixed.keys() == expected.fixed.keys()
    assert [place.classes.tolist() for place in found.places] == [place.classes.tolist() for place in expected.places]


WRITES: list[Callable[[Tensor], Tensor]] = [
    lambda y: y.mul_(0.5), lambda y: y.copy_(y.mean(-1, keepdim=True)), lambda y: y.fill_(2), Tensor.zero_, Tensor.relu_,
]  # fmt: skip


def test_parts_that_are_written_over_are_gone() -> None:
    graph = captured(net(filled)).captured.graph
    assert not any("zeros" in str(node.target) for node in graph.nodes)


class Written(nn.Module):
    """Random views and writes, from a seed."""

    def __init__(self, seed: int) -> None:
        super().__init__()
        self.seed, self.stem = seed, nn.Conv2d(3, 6, 1)

    def forward(self, x: Tensor) -> Tensor:
        draw = random.Random(self.seed)
        values = [self.stem(x)]
        for _ in range(draw.randint(2, 9)):
            y = draw.choice(values)
            what = draw.choice(["slice", "slice", "step", "select", "turn", "write", "write", "write", "new"])
            axis = draw.randint(1, y.ndim - 1)
            size = y.shape[axis]
            start = draw.randrange(size)
            if what == "slice":
                y = y.narrow(axis, start, draw.randint(1, size - start))
            elif what == "step":
                y = y[(slice(None),) * axis + (slice(start % 2, None, 2),)]
            elif what == "select" and y.ndim > 2:
                y = y.select(axis, start)
            elif what == "turn":
                y = y.transpose(1, y.ndim - 1)
            elif what == "write":
                draw.choice(WRITES)(y)
            elif what == "new":
                y = y + 1
            values.append(y)
        return torch.cat([value.flatten(1) for value in values], 1)


@pytest.mark.parametrize("seed", range(60))
@torch.no_grad()
def test_random_views_and_writes(seed: int) -> None:
    torch.manual_seed(0)
    made = Written(seed).eval()
    x = pictures()
    assert torch.equal(capture(made, (3, 6, 6), "a test", check=False)(x), made(x))
