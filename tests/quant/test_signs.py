"""Layers whose input may be negative, and layers that read signs: found in graphs where a value has several readers."""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor, nn

from quant.prepare import prepare
from quant.quantizer_spec import quantizer
from quant.spec import QuantSpec, uniform
from tests.tools.networks import captured


class Net(nn.Module):
    """A stem, two convolutions, and a classifier; `run` computes the part between."""

    def __init__(self, run: Callable[[Net, Tensor], Tensor]) -> None:
        super().__init__()
        self.run = run
        self.stem, self.n, self.pool = nn.Conv2d(3, 6, 3, padding=1), nn.BatchNorm2d(6), nn.MaxPool2d(2)
        self.a, self.b, self.head = nn.Conv2d(6, 6, 3, padding=1), nn.Conv2d(6, 6, 1), nn.Linear(6, 10)

    def forward(self, x: Tensor) -> Tensor:
        return self.head(self.run(self, self.stem(x)).mean((2, 3)))


@torch.no_grad()
def test_a_layer_that_reads_a_signed_value_as_well_has_codes_of_both_signs() -> None:
    """LSQ's codes begin at 0 for non-negative inputs: `a`'s may, `b`'s may not, although both read one value."""

    def run(net: Net, x: Tensor) -> Tensor:
        y = net.n(x).relu()
        return net.b(net.a(y) + net.b(y))

    model = prepare(captured(Net(run)), uniform("lsq", 4, 4).at_ends(["stem"], ["head"]))
    a, b = model.a.input_quantizer, model.b.input_quantizer
    assert (a.lowest, a.highest) == (0, 15)
    assert (b.lowest, b.highest) == (-8, 7)


@torch.no_grad()
def test_every_relu_before_signs_goes() -> None:
    def run(net: Net, x: Tensor) -> Tensor:
        return net.a(net.pool(net.n(x).relu()).relu())

    net = Net(run)
    model = prepare(captured(net), QuantSpec(quantizer("b"), quantizer("b"), ("stem", "head")))
    seen: list[Tensor] = []
    model.a.register_forward_hook(lambda _, inputs, __: seen.append(inputs[0]))
    x = torch.randn(4, 3, 8, 8)
    model(x)
    torch.testing.assert_close(seen[0], net.pool(net.n(net.stem(x))))
