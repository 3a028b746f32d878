"""A network whose forward is one call or module, and the comparison of its program with it."""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor, nn
from torch.nn.modules.batchnorm import _BatchNorm

from deploy.executors.stock import Stock
from deploy.lowering.walk import lower
from deploy.program import Program
from deploy.reference.run import run
from models.graph.capture.form import capture
from models.graph.normal import NormalForm

Call = Callable[["Calling", Tensor], Tensor]


class Calling(nn.Module):
    """A module whose forward is a call, (B, 8, 8, 8) in."""

    def __init__(self, call: Call) -> None:
        super().__init__()
        self.call = call
        self.row, self.column = nn.Parameter(torch.randn(8)), nn.Parameter(torch.randn(8, 1, 1))
        self.map, self.all = nn.Parameter(torch.randn(8, 8)), nn.Parameter(torch.randn(1, 8, 8, 8))
        self.register_buffer("places", torch.tensor([3, 1, 1, -2]))
        self.register_buffer("hidden", torch.ones(8, 8).triu(1).bool())
        self.register_buffer("masked", torch.zeros(8, 8).masked_fill(self.hidden, -torch.inf))

    def forward(self, x: Tensor) -> Tensor:
        return self.call(self, x)


def network(inner: nn.Module | Call) -> nn.Module:
    """Return a convolution followed by a module or a call; norms have statistics unlike those of a fresh network."""
    torch.manual_seed(0)
    made = nn.Sequential()
    made.stem, made.inner = nn.Conv2d(3, 8, 1), inner if isinstance(inner, nn.Module) else Calling(inner)
    for norm in (m for m in made.modules() if isinstance(m, _BatchNorm) and m.running_mean is not None):
        norm.running_mean.normal_()
        norm.running_var.uniform_(0.5, 2)
    return made.eval()


def captured(made: nn.Module) -> NormalForm:
    return capture(made, (3, 8, 8), "a test", check=False)  # compared below


def lowered(form: NormalForm) -> Program:
    return lower(form, (0.5,) * 3, (0.25,) * 3)


@torch.no_grad()
def assert_same(program: Program, made: nn.Module) -> None:
    """Compare both executors with the network in float64, within 1e-5 of the largest number."""
    x = torch.randn(3, 3, 8, 8, generator=torch.Generator().manual_seed(1))
    expected = made.double()(x.double())
    assert expected.isfinite().all()
    assert expected.std() > 0
    for found in (run(program, x), Stock(program)(x)):
        assert found.shape == expected.shape
        assert (found - expected).abs().max() <= 1e-5 * expected.abs().max()
