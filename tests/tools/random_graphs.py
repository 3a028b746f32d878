"""Small random networks: sums, concatenations, chunks, shuffles, groups, depthwise layers, gates, flattens."""

from __future__ import annotations

import random
from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F

Step = Callable[[Any, Tensor], Tensor]
"""A function of a network and a value. It uses the given network's layers, so that a copy uses its own."""
SIZE = 8


class RandomNetwork(nn.Module):
    """A network drawn from `seed` for pictures of 3 x 8 x 8; batch norms have statistics, and scales of both signs."""

    def __init__(self, seed: int) -> None:
        super().__init__()
        self.draw = random.Random(seed)
        self.parts = nn.ModuleList()
        self.scales = nn.ParameterList()
        self.size = SIZE
        torch.manual_seed(seed)
        width = self.draw.choice([8, 16])
        self.steps: list[Step] = [self.run(self.block(3, width))]
        self.said: list[str] = []
        for _ in range(self.draw.randint(2, 5)):
            make = self.draw.choice(STEPS)
            self.said.append(make.__name__)
            step, width = make(self, width)
            self.steps.append(step)
        flat = self.draw.random() < 0.3
        self.said.append("flatten" if flat else "mean")
        head = self.own(nn.Linear(width * self.size**2 if flat else width, 4))
        self.steps.append(lambda net, x: net.parts[head](x.flatten(1) if flat else x.mean((2, 3))))
        for module in self.modules():
            if isinstance(module, nn.BatchNorm2d):
                nn.init.uniform_(module.weight, 0.2, 1.0)
                module.weight.data *= torch.randn(len(module.weight)).sign()
                nn.init.normal_(module.bias, std=0.3)
                nn.init.normal_(module.running_mean, std=0.2)
                nn.init.uniform_(module.running_var, 0.5, 1.5)
        del self.draw

    def own(self, module: nn.Module) -> int:
        """Add a layer and return its index in `parts`."""
        self.parts.append(module)
        return len(self.parts) - 1

    def run(self, *places: int) -> Step:
        """Return a step that runs layers one after the other."""

        def step(net: Any, x: Tensor) -> Tensor:
            for place in places:
                x = net.parts[place](x)
            return x

        return step

    def block(self, inputs: int, outputs: int, kernel: int = 1, groups: int = 1, act: nn.Module | None = None) -> int:
        conv = nn.Conv2d(inputs, outputs, kernel, padding=kernel // 2, groups=groups, bias=self.draw.random() < 0.5)
        return self.own(nn.Sequential(conv, nn.BatchNorm2d(outputs), act or nn.ReLU()))

    def forward(self, x: Tensor) -> Tensor:
        for step in self.steps:
            x = step(self, x)
        return x


Made = tuple[Step, int]


def plain(net: RandomNetwork, width: int) -> Made:
    to = net.draw.choice([8, 12, 16])
    act = net.draw.choice([nn.ReLU(), nn.SiLU(), nn.Hardswish(), nn.LeakyReLU(), nn.PReLU(to), nn.Tanh()])
    return net.run(net.block(width, to, net.draw.choice([1, 3]), act=act)), to


def residual(net: RandomNetwork, width: int) -> Made:
    inner = net.draw.choice([4, 8])
    a, b = net.block(width, inner), net.block(inner, width, 3, act=nn.Identity())
    return (lambda net, x: F.relu(x + net.run(a, b)(net, x))), width


def projected(net: RandomNetwork, width: int) -> Made:
    to = net.draw.choice([8, 16])
    a, short = net.block(width, to, 3), net.block(width, to, act=nn.Identity())
    return (lambda net, x: net.parts[a](x) + net.parts[short](x)), to


def depthwise(net: RandomNetwork, width: int) -> Made:
    times = net.draw.choice([1, 2])
    return net.run(net.block(width, width * times, 3, groups=width)), width * times


def grouped(net: RandomNetwork, width: int) -> Made:
    groups = net.draw.choice([2, 4])
    to = net.draw.choice([8, 16])
    return net.run(net.block(width, to, groups=groups)), to


def concatenated(net: RandomNetwork, width: int) -> Made:
    to = net.draw.choice([4, 8])
    branch = net.block(width, to)
    return (lambda net, x: torch.cat([x, net.parts[branch](x)], 1)), width + to


def chunked(net: RandomNetwork, width: int) -> Made:
    right = net.block(width // 2, width // 2, 3)

    def step(net: Any, x: Tensor) -> Tensor:
        a, b = x.chunk(2, 1)
        return torch.cat([a, net.parts[right](b)], 1)

    return step, width


def shuffled(net: RandomNetwork, width: int) -> Made:
    groups = net.draw.choice([2, 4])

    def step(net: Any, x: Tensor) -> Tensor:
        b, c, h, w = x.shape
        return x.view(b, groups, c // groups, h, w).transpose(1, 2).reshape(b, c, h, w)

    return step, width


def gated(net: RandomNetwork, width: int) -> Made:
    a, b = net.own(nn.Conv2d(width, 4, 1)), net.own(nn.Conv2d(4, width, 1))
    return (lambda net, x: x * torch.sigmoid(net.parts[b](F.relu(net.parts[a](x.mean((2, 3), keepdim=True)))))), width


def halves_gated(net: RandomNetwork, width: int) -> Made:
    """GLU: one half scales the other; the width is halved."""

    def step(net: Any, x: Tensor) -> Tensor:
        a, b = x.chunk(2, 1)
        return a * torch.sigmoid(b)

    return (step, width // 2) if width % 8 == 0 else plain(net, width)


def squashed(net: RandomNetwork, width: int) -> Made:
    """A sigmoid: a silent channel gives 1/2, not 0."""
    return (lambda net, x: torch.sigmoid(x)), width


def scaled(net: RandomNetwork, width: int) -> Made:
    scale = nn.Parameter(torch.rand(width, 1, 1) + 0.5)
    net.scales.append(scale)
    place = len(net.scales) - 1
    return (lambda net, x: x * net.scales[place]), width


def shifted(net: RandomNetwork, width: int) -> Made:
    shift = nn.Parameter(torch.randn(1, width, 1, 1))
    net.scales.append(shift)
    place = len(net.scales) - 1
    return (lambda net, x: x + net.scales[place]), width


def pooled(net: RandomNetwork, width: int) -> Made:
    if net.size < 4:
        return plain(net, width)
    net.size //= 2
    return net.run(net.own(net.draw.choice([nn.MaxPool2d(2), nn.AvgPool2d(2)]))), width


def normed(net: RandomNetwork, width: int) -> Made:
    return net.run(net.own(nn.BatchNorm2d(width))), width


def attended(net: RandomNetwork, width: int) -> Made:
    """Attention with one map for all channels."""
    a = net.own(nn.Conv2d(width, 1, 1))
    return (lambda net, x: x * torch.sigmoid(net.parts[a](x))), width


def mixed(net: RandomNetwork, width: int) -> Made:
    """An operation without a rule."""
    return (lambda net, x: x - x.logsumexp(1, keepdim=True)), width


STEPS = (
    plain, plain, residual, residual, projected, depthwise, grouped, concatenated, chunked, shuffled, gated, halves_gated,
    squashed, scaled, shifted, pooled, normed, attended, mixed,
)  # fmt: skip
