"""What capture refuses by name: random outputs, gradients that a graph loses, layers that the network does not hold."""

from __future__ import annotations

import copy
from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from models.check import Misdeclared
from models.graph.capture.form import capture
from tests.tools import cases
from tests.tools.odd_networks import Bare

STOCHASTIC = "DropoutLeftOn"


def values_decide(net: nn.Module, x: Tensor) -> Tensor:
    return x if x.sum() > 0 else -x


def one_batch(net: nn.Module, x: Tensor) -> Tensor:
    return x.reshape(x.shape[0] // 3, 3, 6, 16, 16)[:, 0].repeat(3, 1, 1, 1) if x.shape[0] == 3 else x


def squared_in_evaluation(net: nn.Module, x: Tensor) -> Tensor:
    """Evaluation writes, by a call without a name for its value, into a part that the layer has read."""
    if net.training:
        return torch.cat([net.part(x[:, :3]), x[:, 3:].square()], 1)
    x = x.clone()
    found = net.part(x[:, :3])
    x.narrow(1, 0, 6).pow_(2)
    return torch.cat([found, x[:, 3:]], 1)


class Sign(torch.autograd.Function):
    """A sign with a straight-through gradient; `Swish` below has the derivative that autograd would derive."""

    @staticmethod
    def forward(ctx: Any, x: Tensor) -> Tensor:
        return torch.sign(x)

    @staticmethod
    def backward(ctx: Any, gradient: Tensor) -> Tensor:
        return gradient


class Swish(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, x: Tensor) -> Tensor:
        ctx.save_for_backward(x)
        return x * x.sigmoid()

    @staticmethod
    def backward(ctx: Any, gradient: Tensor) -> Tensor:
        (x,) = ctx.saved_tensors
        return gradient * x.sigmoid() * (1 + x * (1 - x.sigmoid()))


def reversed_gradient(net: nn.Module, x: Tensor) -> Tensor:
    y = x * 1
    if y.requires_grad:
        y.register_hook(lambda gradient: -gradient)
    return y


def strided(net: nn.Module, x: Tensor) -> Tensor:
    rows, columns = x.stride()[2:]
    return x.as_strided((*x.shape[:2], 14, 14, 3, 3), (*x.stride(), rows, columns)).amax((-1, -2))


def limited(net: Any, x: Tensor) -> Tensor:
    with torch.no_grad():
        net.part.weight.clamp_(-0.1, 0.1)
    return net.part(x)


def replaced(net: Any, x: Tensor) -> Tensor:
    """Limit the norm of filters, as EEGNet does: a second run changes nothing more."""
    net.part.weight.data = torch.renorm(net.part.weight.detach(), 2, 0, 0.1)
    return net.part(x)


def complex_numbers_changed_in_place(net: nn.Module, x: Tensor) -> Tensor:
    y = x * 1
    torch.view_as_complex(y.reshape(*y.shape[:3], -1, 2)).mul_(2)
    return y


@pytest.mark.parametrize(
    "run",
    [
        lambda net, x: Swish.apply(x),
        lambda net, x: x + (x.sign() - x).detach(),
        lambda net, x: net.block(x),  # the gradient of the convolution's bias is 0 but for rounding
    ],
    ids=["function", "detach", "norm"],
)
def test_gradients_of_a_captured_graph_are_the_networks_own(run: Callable[..., Tensor]) -> None:
    block = nn.Sequential(nn.Conv2d(6, 6, 3), nn.BatchNorm2d(6), nn.ReLU())
    torch.manual_seed(0)
    own = Bare(run, block=block)
    form, x = capture(copy.deepcopy(own), (3, 16, 16), "net:Net").train(), torch.randn(4, 3, 16, 16)
    for network in (own.train(), form):
        network(x).square().sum().backward()
    for name, parameter in form.named_parameters():
        wanted = own.get_parameter(name).grad
        assert wanted is None or torch.allclose(parameter.grad, wanted, rtol=1e-4, atol=1e-5), name


def in_a_list(*layers: nn.Module) -> nn.Module:
    """Return a network that does not hold its layers, as a list is no nn.ModuleList."""
    return Bare(lambda net, x: nn.Sequential(*layers)(x))


def with_autocast(on: bool) -> Callable[..., Tensor]:
    def run(net: nn.Module, x: Tensor) -> Tensor:
        with torch.autocast("cpu", torch.bfloat16, enabled=on):
            y = net.conv(x)
        return y.float()

    return run


def branches(net: nn.Module, x: Tensor) -> Tensor:
    return torch.cond(x.sum() > 0, lambda y: y * 2, lambda y: y + 1, (x,))


def held_as_self() -> nn.Module:
    own = Bare(lambda net, x: x * net.self)
    own.register_parameter("self", nn.Parameter(torch.ones(())))
    return own


class Outputs(nn.Module):
    def __init__(self, count: int) -> None:
        super().__init__()
        self.count, self.conv = count, nn.Conv2d(3, 4, 1)

    def forward(self, x: Tensor) -> tuple[Tensor, ...]:
        return (self.conv(x).mean((2, 3)),) * self.count


class Counts(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.conv = nn.Conv2d(3, 4, 1)
        self.register_buffer("seen", torch.zeros(()))

    def forward(self, x: Tensor) -> Tensor:
        self.seen += 1
        return self.conv(x).mean((2, 3))


@pytest.mark.parametrize(
    ("make", "error", "hint"),
    [
        (lambda: getattr(cases, STOCHASTIC)(10), "answers differently each time", "training=self.training"),
        (lambda: Bare(values_decide), "test_capture_refused.py:", "depend on the values"),
        (lambda: Bare(one_batch), "only one number of pictures", "x.shape[0]"),
        (
            lambda: Bare(lambda net, x: x * net.gain.data, gain=nn.Parameter(torch.ones(6, 1, 1))),
            "reads .data of a tensor",
            "take .detach()",
        ),
        (
            lambda: Bare(
                lambda net, x: torch.cdist(x.mean((2, 3)), net.seen)[:, :, None, None], seen=torch.randn(6, 6)
            ),
            "in another way for other numbers of pictures",
            "torch.cdist needs compute_mode",
        ),
        (
            lambda: Bare(squared_in_evaluation, part=nn.Conv2d(3, 3, 3, padding=1)),
            "its captured graph cannot be trained",
            "take torch.cat instead",
        ),
        (lambda: Outputs(2), "returns 2 tensors", "return only"),
        (lambda: Outputs(0), "returns 0 tensors", "return only"),
        (Counts, "changes its buffer seen", "if self.training"),
        (lambda: Bare(lambda net, x: Sign.apply(x)), "graph differ: stem.weight, stem.bias", "x + (f(x) - x).detach()"),
        (lambda: in_a_list(nn.Conv2d(6, 6, 3)), "does not hold, of shape (6,), (6, 6, 3, 3)", "nn.ModuleList"),
        (lambda: in_a_list(nn.BatchNorm2d(6)), "does not hold, of shape (6,), (6,)", "nn.ModuleList"),
        (lambda: Bare(with_autocast(True), conv=nn.Conv2d(6, 6, 3)), "turns autocast on (File ", "--precision"),
        (lambda: Bare(branches), "calls cond, ", "torch.where"),
        (lambda: Bare(lambda net, x: torch.vmap(lambda map: map * 2)(x)), "calls torch.vmap", "calls that broadcast"),
        (
            lambda: Bare(limited, part=nn.Conv2d(6, 6, 1)),
            "evaluation changes its parameter part.weight",
            "limited(self.weight)",
        ),
        (
            lambda: Bare(replaced, part=nn.Conv2d(6, 6, 1)),
            "evaluation changes its parameter part.weight",
            "limited(self.weight)",
        ),
        (lambda: Bare(reversed_gradient), "graph differ: stem.weight, stem.bias", "gradient hooks"),
        (lambda: Bare(strided), "on the order of numbers in memory: aten.as_strided (File ", "unfold"),
        (lambda: Bare(complex_numbers_changed_in_place), "in memory: aten.view_as_complex (File ", "channels last"),
        (lambda: nn.Conv2d(4, 4, 1), "expected input", "pictures of 3x16x16"),
        (lambda: nn.Sequential(nn.Conv2d(3, 4, 1), nn.Flatten(), nn.Linear(7, 2)), "mat1 and mat2", "3x16x16"),
        (lambda: Bare(lambda net, x: x * net.cfg, cfg=torch.ones(())), "has the reserved name cfg", "rename it"),
        (held_as_self, "reserved name self", "rename it"),
        (lambda: Bare(lambda net, x: x * len(x)), "only one number of pictures", "len(x)"),
        (
            lambda: Bare(lambda net, x: net.captured(x), captured=nn.ReLU()),
            "a module, parameter or buffer has the reserved name captured",
            "rename it",
        ),
    ],
    ids=[
        "random",
        "values",
        "batch",
        "data",
        "rows",
        "written parts",
        "two",
        "none",
        "buffer",
        "backward",
        "list",
        "norms",
        "autocast",
        "cond",
        "vmap",
        "limited",
        "replaced",
        "hook",
        "strides",
        "complex",
        "channels",
        "size",
        "buffer's name",
        "parameter's name",
        "len",
        "name",
    ],
)
def test_what_cannot_be_captured_is_refused_by_name(
    make: Callable[[], nn.Module], error: str, hint: str, capsys: pytest.CaptureFixture[str]
) -> None:
    with pytest.raises(Misdeclared) as refused:
        capture(make(), (3, 16, 16), "net:Net")
    assert str(refused.value).startswith("--arch net:Net: ")
    assert error in str(refused.value)
    assert hint in refused.value.hint
    assert "\n" not in str(refused.value)
    assert capsys.readouterr().err == ""
