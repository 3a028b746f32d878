"""Unusual networks: in-place changes, raw kernels, tied weights, constants in the code, parametrizations."""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor, nn
from torch.nn import functional as F


class Bare(nn.Module):
    """A network of one function, with any modules and tensors that it is given."""

    def __init__(self, run: Callable[..., Tensor], **parts: nn.Module | nn.Parameter | Tensor) -> None:
        super().__init__()
        self.run = run
        self.stem = nn.Conv2d(3, 6, 3, padding=1)
        self.head = nn.Linear(6, 4)
        for name, part in parts.items():
            if isinstance(part, (nn.Module, nn.Parameter)):
                setattr(self, name, part)
            else:
                self.register_buffer(name, part)

    def forward(self, x: Tensor) -> Tensor:
        return self.head(self.run(self, self.stem(x)).mean((2, 3)))


def changed_and_read(net: nn.Module, x: Tensor) -> Tensor:
    y = x * 2
    z = F.relu_(y)
    return y + z  # reads a value that relu_ has changed


def part_changed(net: nn.Module, x: Tensor) -> Tensor:
    y = x * 2
    y[:, 0] = 1.0
    y[:, 1:3] += x[:, 1:3]
    return y


def view_changed(net: nn.Module, x: Tensor) -> Tensor:
    y = x * 2
    flat = y.view(y.shape[0], -1)
    flat.mul_(3)
    return y + flat.sum(1)[:, None, None, None]


def sum_in_place(net: nn.Module, x: Tensor) -> Tensor:
    y = x.relu()
    y += x
    x -= y
    return x * y


def by_function(net: nn.Module, x: Tensor) -> Tensor:
    """Apply a raw kernel twice with the same stride, and once with another."""
    x = F.conv2d(F.conv2d(x, net.kernel, net.shift, padding=1), net.kernel, net.shift, padding=1)
    return F.conv2d(x, net.kernel, net.shift, stride=2, padding=1)


def converted(net: nn.Module, x: Tensor) -> Tensor:
    return F.conv2d(x.float(), net.kernel.float(), padding=1).to(x.dtype)


def positions(net: nn.Module, x: Tensor) -> Tensor:
    rows = torch.arange(x.shape[2], device=x.device)
    return x * rows[:, None] + torch.ones(x.shape[0], 1, 1, 1) * torch.zeros(1)


def without_gradient(net: nn.Module, x: Tensor) -> Tensor:
    with torch.no_grad():
        y = x.relu()
    return x + y


def counted_up(net: nn.Module, x: Tensor) -> Tensor:
    """Change a constant of the code before reading it: every run starts from the same constant."""
    mask = torch.zeros(x.shape[2], x.shape[3])
    mask[2:-2, 2:-2] += 1
    mask[4:] += 1
    return x * mask.to(x)


def by_vector(net: nn.Module, x: Tensor) -> Tensor:
    return x * F.linear(x.mean((2, 3)), net.weight)[:, None, None, None]


def tied(net: nn.Module, x: Tensor) -> Tensor:
    return net.b(net.a(x))


def alike() -> dict[str, nn.Module]:
    a, b = nn.Conv2d(6, 6, 1), nn.Conv2d(6, 6, 1)
    b.weight = a.weight
    return {"a": a, "b": b}


def kernel() -> nn.Parameter:
    return nn.Parameter(torch.randn(6, 6, 3, 3) / 8)


ODD: dict[str, Callable[[], nn.Module]] = {
    "changed and read": lambda: Bare(changed_and_read),
    "part changed": lambda: Bare(part_changed),
    "view changed": lambda: Bare(view_changed),
    "sum in place": lambda: Bare(sum_in_place),
    "raw kernel": lambda: Bare(by_function, kernel=kernel(), shift=nn.Parameter(torch.randn(6))),
    "converted": lambda: Bare(converted, kernel=kernel()),
    "positions": lambda: Bare(positions),
    "counted up": lambda: Bare(counted_up),
    "a vector as a linear layer": lambda: Bare(by_vector, weight=nn.Parameter(torch.randn(6))),
    "no gradient": lambda: Bare(without_gradient),
    "tied weights": lambda: Bare(tied, **alike()),
    "weight norm": lambda: Bare(
        lambda net, x: net.conv(x), conv=nn.utils.parametrizations.weight_norm(nn.Conv2d(6, 6, 3))
    ),
    "spectral norm": lambda: Bare(
        lambda net, x: net.conv(x), conv=nn.utils.parametrizations.spectral_norm(nn.Conv2d(6, 6, 3))
    ),
    "buffer": lambda: Bare(lambda net, x: x - net.centre, centre=torch.randn(6, 1, 1)),
    "one activation, twice": lambda: Bare(lambda net, x: net.act(net.act(x) - 1), act=nn.ReLU(inplace=True)),
    "layer norm": lambda: Bare(lambda net, x: net.norm(x), norm=nn.LayerNorm([6, 16, 16])),
    "group norm": lambda: Bare(lambda net, x: net.norm(x), norm=nn.GroupNorm(2, 6)),
    "attention": lambda: Bare(
        lambda net, x: net.mix(*[x.flatten(2).transpose(1, 2)] * 3, need_weights=False)[0].transpose(1, 2)[..., None],
        mix=nn.MultiheadAttention(6, 2, batch_first=True),
    ),
    "unused": lambda: Bare(lambda net, x: x, spare=nn.Conv2d(6, 6, 1)),
    "frozen": lambda: Bare(lambda net, x: net.conv(x), conv=nn.Conv2d(6, 6, 1).requires_grad_(False)),
    "circular padding": lambda: Bare(
        lambda net, x: net.conv(x), conv=nn.Conv2d(6, 6, 3, padding="same", padding_mode="circular")
    ),
    "same padding": lambda: Bare(lambda net, x: net.conv(x), conv=nn.Conv2d(6, 6, 3, padding="same", dilation=2)),
}


def small_attention(classes: int = 10) -> nn.Module:
    """Return a network with attention: two heads of width 3 over all places of a picture."""
    net = ODD["attention"]()
    net.head = nn.Linear(6, classes)
    return net
