"""Costs of captured networks equal torch's counter and sums by hand: layers of every kind, ATen calls, sharing."""

from __future__ import annotations

from collections.abc import Callable

import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional as F
from torch.nn.attention import SDPBackend, sdpa_kernel
from torch.utils.flop_counter import FlopCounterMode

from models import cost, libraries
from models.cost import LayerCost
from models.graph.capture.form import capture
from models.graph.normal import NormalForm
from tests.tools import cases
from tests.tools.odd_networks import ODD, Bare


def counted(model: nn.Module, *picture: int) -> int:
    """Return torch's count of multiply-accumulates for one picture; attention uses the plain kernel, as torch skips others."""
    with sdpa_kernel(SDPBackend.MATH), FlopCounterMode(display=False) as counter:
        model.eval()(torch.zeros(1, *picture))
    return counter.get_total_flops() // 2


def macs(model: nn.Module) -> int:
    return cost.total(cost.layers(model), "macs")


def named(form: NormalForm) -> dict[str, LayerCost]:
    rows = cost.layers(form)
    assert len({row.name for row in rows}) == len(rows)
    return {row.name: row for row in rows}


LIBRARY = {
    "squeezenet1_1": 32, "shufflenet_v2_x0_5": 32, "fcn_resnet50": 32,
}  # fmt: skip
LARGE = {
    "resnet18": 32,
    "mobilenet_v3_small": 32, "googlenet": 32, "inception_v3": 75, "densenet121": 32, "vit_b_16": 224, "swin_t": 32,
    "efficientnet_b0": 32, "convnext_tiny": 32, "regnet_y_400mf": 32, "swin_v2_t": 64, "maxvit_t": 224,
    "lraspp_mobilenet_v3_large": 32,
}  # fmt: skip


@pytest.mark.parametrize(
    ("name", "side"),
    [*LIBRARY.items(), *(pytest.param(*large, marks=pytest.mark.slow) for large in LARGE.items())],
)
def test_networks_of_torchvision_cost_what_torch_counts(name: str, side: int) -> None:
    own = libraries.build(f"torchvision:{name}", 10)
    form = capture(own, (3, side, side), name, check=False)
    assert macs(form) == counted(own, 3, side, side)
    rows = cost.layers(form)
    assert cost.total(rows, "params") == sum(p.numel() for p in form.parameters())
    assert len({(row.name, row.kind) for row in rows}) == len(rows)  # none of them runs a layer twice


@pytest.mark.parametrize("name", cases.NAMES)
def test_networks_of_users_cost_what_torch_counts(name: str) -> None:
    own, picture = getattr(cases, name)(10), (1 if name == "gray" else 3, 16, 16)
    if name == "flatten_linear":
        picture = (3, 32, 32)
    assert macs(capture(own, picture, name, check=False)) == counted(own, *picture)


NO_FORMULA = ("spectral norm", "a vector as a linear layer")  # torch's counter counts 0 for a matrix times a vector


@pytest.mark.parametrize("name", [name for name in ODD if name not in NO_FORMULA])
def test_odd_networks_cost_what_torch_counts(name: str) -> None:
    own = ODD[name]()
    form = capture(own, (3, 16, 16), name, check=False)
    assert macs(form) == counted(own, 3, 16, 16)
    assert cost.total(cost.layers(form), "params") == sum(p.numel() for p in form.parameters())


class Layers(nn.Module):
    """A convolution of one, two or three dimensions, plain or transposed, grouped or not; it gives 10 numbers."""

    def __init__(self, layer: nn.Module, directions: int) -> None:
        super().__init__()
        self.layer, self.directions = layer, directions

    def forward(self, x: Tensor) -> Tensor:
        x = {1: x[..., 0], 2: x, 3: x[:, :, None].expand(-1, -1, 3, -1, -1)}[self.directions]
        return self.layer(x).flatten(1)[:, :10]


@pytest.mark.parametrize("directions", [1, 2, 3])
@pytest.mark.parametrize("transposed", [False, True])
@pytest.mark.parametrize(("groups", "stride"), [(1, 1), (1, 2), (2, 1), (4, 2)])
def test_convolutions_of_every_kind(directions: int, transposed: bool, groups: int, stride: int) -> None:
    kind = getattr(nn, f"Conv{'Transpose' * transposed}{directions}d")
    own = Layers(kind(4, 8, 3, stride, padding=1, groups=groups), directions)
    form = capture(own, (4, 9, 9), "net", check=False)
    side = stride * 8 + 1 if transposed else 8 // stride + 1
    depth = {1: 1, 2: 1, 3: (stride * 2 + 1 if transposed else 2 // stride + 1)}[directions]
    places = (
        (3 if directions == 3 else 1) * 9 ** min(directions, 2) if transposed else depth * side ** min(directions, 2)
    )
    expected = 8 * 4 // groups * 3**directions * places
    assert macs(form) == counted(own, 4, 9, 9) == expected
    assert [(r.kind, r.macs) for r in cost.layers(form) if r.macs] == [(kind.__name__, expected)]


class Products(nn.Module):
    """Matrix products outside modules, on 4 x 4 pictures."""

    def __init__(self) -> None:
        super().__init__()
        self.table, self.vector = nn.Parameter(torch.randn(16, 5)), nn.Parameter(torch.randn(5))
        self.inner = nn.Module()
        self.inner.bias = nn.Parameter(torch.randn(7))

    def forward(self, x: Tensor) -> Tensor:
        x = x.flatten(2)  # 3 x 16
        y = x @ self.table  # 3 x 5
        z = torch.bmm(y, y.transpose(1, 2))  # 3 x 3
        mixed = torch.einsum("bij,bjk->bik", z, y) * (y @ self.vector)[..., None]
        return F.linear(mixed.flatten(1), torch.ones(7, 15), self.inner.bias)[:, :4]


def test_products_have_rows_under_their_owner_and_operation() -> None:
    form = capture(Products(), (3, 4, 4), "net", check=False)
    rows = named(form)
    found = {name: (row.kind, row.shape, row.params, row.macs) for name, row in rows.items()}
    assert found == {
        "matmul": ("ATen", (3, 5), 80, 3 * 5 * 16),
        "bmm": ("ATen", (3, 3), 0, 3 * 3 * 5),
        "einsum": ("ATen", (3, 5), 0, 3 * 5 * 3),
        "matmul_1": ("ATen", (3,), 5, 3 * 5),  # by a vector: torch's counter has no formula
        "linear": ("ATen", (7,), 7, 7 * 15),
    }
    assert macs(form) == counted(Products(), 3, 4, 4) + 15
    assert cost.total([*rows.values()], "bits") == 32 * (80 + 5 + 7)  # tensors that the code makes are in no file


def test_attention_counts_by_its_formula() -> None:
    form = capture(ODD["attention"](), (3, 16, 16), "net", check=False)
    row = named(form)["mix.scaled_dot_product_attention"]
    length, width, heads = 256, 6, 2
    assert (row.kind, row.params, row.shape) == ("ATen", 0, (heads, length, width // heads))
    assert row.macs == 2 * length * length * width
    inner = named(form)["mix.linear"]
    assert (inner.kind, inner.params) == ("Linear", 3 * width * width + 3 * width)
    assert inner.macs == length * width * 3 * width  # the sequence comes first, not the pictures


def test_a_norm_that_is_no_module_stands_where_it_runs() -> None:
    rows = cost.layers(capture(ODD["layer norm"](), (3, 16, 16), "net", check=False))
    assert [(r.name, r.kind, r.params) for r in rows] == [
        ("stem", "Conv2d", 168), ("norm.layer_norm", "ATen", 2 * 6 * 16 * 16), ("head", "Linear", 28),
    ]  # fmt: skip


class TwoNames(nn.Module):
    """A convolution and a batch norm with two names each."""

    def __init__(self) -> None:
        super().__init__()
        self.one, self.norm = nn.Conv2d(3, 3, 3, padding=1), nn.BatchNorm2d(3)
        self.other, self.block = self.one, nn.Sequential(self.norm)
        self.head = nn.Linear(3, 10)

    def forward(self, x: Tensor) -> Tensor:
        return self.head(self.block(self.one(x)).mean((2, 3)))


def test_modules_of_two_names_are_counted_once(capsys: pytest.CaptureFixture[str]) -> None:
    form = capture(TwoNames(), (3, 4, 4), "net")
    rows = cost.layers(form)
    assert cost.total(rows, "params") == sum(p.numel() for p in TwoNames().parameters()) == 84 + 6 + 40
    assert cost.total(rows, "bits") == 32 * (84 + 6 + 6 + 40)
    assert macs(form) == 81 * 16 + 30
    assert capsys.readouterr().err == ""  # all layers run


def test_a_layer_that_runs_twice_multiplies_twice() -> None:
    rows = [
        row for row in cost.layers(capture(cases.SharedConv(), (3, 16, 16), "net", check=False)) if row.name == "conv"
    ]
    assert [(row.params, row.macs) for row in rows] == [(2304, 2304 * 64), (0, 2304 * 64)]


@pytest.mark.parametrize("make", [cases.AuxiliaryOutputs, ODD["unused"]])
def test_what_evaluation_does_not_use_is_not_counted(make: Callable[[], nn.Module]) -> None:
    own = make()
    form = capture(own, (3, 16, 16), "net", check=False)
    unused = sum(p.numel() for name, p in own.named_parameters() if name.startswith(("aux", "spare")))
    rows = cost.layers(form)
    assert cost.total(rows, "params") == sum(p.numel() for p in own.parameters()) - unused
    assert not any(row.name.startswith(("aux", "spare")) for row in rows)
    held = sum(t.numel() for name, t in own.state_dict().items() if not name.endswith("num_batches_tracked"))
    assert cost.total(rows, "bits") == 32 * (held - unused)


@pytest.mark.parametrize("held", [nn.Parameter(torch.zeros(1, 6, 16, 16)), torch.zeros(1, 6, 16, 16)])
def test_what_a_module_reads_alone_is_counted(held: Tensor) -> None:
    """sigmoid(gate) becomes a module, whose input is a tensor of the network; another one reads it again."""
    own = Bare(lambda net, x: x * torch.sigmoid(net.gate) + torch.relu(net.gate), gate=held)
    rows = cost.layers(capture(own, (3, 16, 16), "net", check=False))
    whole = isinstance(held, nn.Parameter)
    (row,) = [row for row in rows if row.name == "sigmoid.input"]
    assert (row.params, row.bits, row.macs) == (held.numel() * whole, 32 * held.numel(), 0)
    assert cost.total(rows, "params") == sum(p.numel() for p in own.parameters())
    assert cost.total(rows, "bits") == 32 * sum(t.numel() for t in own.state_dict().values())


def test_it_leaves_no_trace() -> None:
    form = capture(cases.flatten_linear(), (3, 32, 32), "net", check=False).train()
    before = {key: value.clone() for key, value in form.state_dict().items()}
    x = torch.randn(2, 3, 32, 32)
    cost.layers(form)
    assert all(module.training for module in form.modules())
    assert all(torch.equal(before[key], value) for key, value in form.state_dict().items())
    assert not any(module._forward_hooks for module in form.modules())
    assert form.eval()(x).shape == (2, 10)
