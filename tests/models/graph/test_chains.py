"""Batch norms that a layer can absorb, batch norms read only by sign, and the origin of values."""

from __future__ import annotations

from collections.abc import Callable

import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from bn_merge.merge import merge
from models.graph.chains import Chain, chains, read_by_sign, unfolded
from models.graph.flow import first_layers, hands_on, is_held, last_layers, never_negative, places, unscaled
from models.graph.normal import NormalForm
from quant.prepare import prepare
from quant.quantizer_spec import quantizer
from quant.spec import QuantSpec
from tests.tools.networks import captured


class Net(nn.Module):
    """Convolutions a to d, batch norms n and m, a pool, a classifier; `run` computes the middle part from a 6-channel value."""

    def __init__(self, run: Callable[[Net, Tensor], Tensor]) -> None:
        super().__init__()
        self.run = run
        self.stem, self.head = nn.Conv2d(3, 6, 3, padding=1), nn.Linear(6, 10)
        for name in "abcd":
            setattr(self, name, nn.Conv2d(6, 6, 3, padding=1))
        self.n, self.m, self.pool = nn.BatchNorm2d(6), nn.BatchNorm2d(6), nn.MaxPool2d(2)
        self.fc, self.n1 = nn.Linear(6, 6), nn.BatchNorm1d(6)

    def forward(self, x: Tensor) -> Tensor:
        x = self.run(self, self.stem(x).relu())
        return self.head(x if x.ndim == 2 else x.flatten(2).mean(2))


def made(run: Callable[[Net, Tensor], Tensor]) -> NormalForm:
    """Return the network's normal form; batch norms have statistics, and gammas of both signs."""
    torch.manual_seed(0)
    model = captured(Net(run))
    for norm in (m for m in model.modules() if isinstance(m, (nn.BatchNorm2d, nn.BatchNorm1d)) and m.num_features):
        nn.init.normal_(norm.weight)
        nn.init.normal_(norm.bias)
        nn.init.normal_(norm.running_mean)
        nn.init.uniform_(norm.running_var, 0.5, 2)
    return model


def side(net: Net, x: Tensor) -> Tensor:
    y = net.a(x)
    return net.n(y) + y


def twice_one_norm(net: Net, x: Tensor) -> Tensor:
    return net.n(net.a(net.n(net.a(x)).relu()))


def twice_two_norms(net: Net, x: Tensor) -> Tensor:
    return net.m(net.a(net.n(net.a(x)).relu()))


def reads_gamma(net: Net, x: Tensor) -> Tensor:
    return net.n(net.a(x)) * net.n.weight.abs().mean()


def two_layers_one_norm(net: Net, x: Tensor) -> Tensor:
    return net.n(net.a(x)) + net.n(net.b(x))


PLACES: dict[str, tuple[Callable[[Net, Tensor], Tensor], list[Chain]]] = {
    "right behind": (lambda net, x: net.n(net.a(x)), [Chain("a", "n")]),
    "behind a pool": (lambda net, x: net.n(net.pool(net.a(x))), [Chain("a", "n", "pool")]),
    "behind an average": (lambda net, x: net.n(F.avg_pool2d(net.a(x), 2)), []),
    "behind a sum": (lambda net, x: net.n(net.a(x) + x), []),
    "behind a ReLU": (lambda net, x: net.n(net.a(x).relu()), []),
    "behind another": (lambda net, x: net.m(net.n(net.a(x))), [Chain("a", "n")]),
    "its layer is read elsewhere, too": (side, []),
    "a pool that is read elsewhere, too": (lambda net, x: (y := net.pool(net.a(x))) + net.n(y), []),
    "both at two places": (twice_one_norm, [Chain("a", "n")]),
    "a layer with two norms": (twice_two_norms, []),
    "a norm with two layers": (two_layers_one_norm, []),
    "its gamma is read elsewhere, too": (reads_gamma, []),
    "a linear layer": (lambda net, x: net.n1(net.fc(x.mean((2, 3)))), [Chain("fc", "n1")]),
    "a linear layer over positions": (
        lambda net, x: net.n1(net.fc(x.flatten(2).transpose(1, 2)).transpose(1, 2)), [],
    ),
    "positions as channels": (lambda net, x: net.n1(net.fc(x[..., 0].transpose(1, 2)[:, :6])).mean(1), []),
}  # fmt: skip


@torch.no_grad()
@pytest.mark.parametrize("where", PLACES)
def test_a_layer_does_the_work_of_a_norm_that_nothing_else_reaches(where: str) -> None:
    """Folded or not, the network computes the same."""
    run, expected = PLACES[where]
    model = made(run).double()
    assert chains(model) == expected
    ran = [name for name in places(model) if name in ("n", "m", "n1")]
    folded = [chain.norm for chain in expected]
    assert unfolded(model) == [name for name in ran if name not in folded]
    x = torch.randn(4, 3, 8, 8).double()
    merged = merge(model)
    torch.testing.assert_close(merged(x), model(x), rtol=0, atol=1e-12)
    assert not any(isinstance(merged.get_submodule(name), (nn.BatchNorm2d, nn.BatchNorm1d)) for name in folded)


SIGNS: dict[str, tuple[Callable[[Net, Tensor], Tensor], set[str]]] = {
    "one reader": (lambda net, x: net.b(net.n(net.a(x))), {"n"}),
    "behind a ReLU that goes": (lambda net, x: net.b(net.n(net.a(x)).relu()), {"n"}),
    "two readers": (lambda net, x: net.b(y := net.n(net.a(x))) + net.c(y), {"n"}),
    "a pool between": (lambda net, x: net.b(net.pool(net.n(net.a(x)))), {"n"}),
    "joined": (lambda net, x: net.b(torch.cat([net.n(net.a(x))[:, :3], net.m(net.c(x))[:, 3:]], 1)), {"n", "m"}),
    "a sum reads it, too": (lambda net, x: net.b(y := net.n(net.a(x))) + y, set()),
    "an average between": (lambda net, x: net.b(F.avg_pool2d(net.n(net.a(x)), 2)), set()),
    "a float layer reads it, too": (lambda net, x: net.b(y := net.n(net.a(x))) + net.d(y), set()),
    "nobody but the answer": (lambda net, x: net.n(net.a(x)), set()),
}


@torch.no_grad()
@pytest.mark.parametrize("where", SIGNS)
def test_a_norm_is_read_by_sign_if_every_reader_looks_at_signs(where: str) -> None:
    """Reduced to a threshold or not, the network computes the same."""
    run, expected = SIGNS[where]
    model = made(run)
    floats = tuple(name for name in ("stem", "d", "head") if name in places(model))
    model = prepare(model, QuantSpec(quantizer("b"), quantizer("b"), floats)).double()
    assert read_by_sign(model) == expected
    assert read_by_sign(made(run)) == set()
    x = torch.randn(4, 3, 8, 8).double()
    torch.testing.assert_close(merge(model)(x), model(x), rtol=0, atol=1e-12)


ENDS: list[tuple[Callable[[Tensor, nn.ModuleDict], Tensor], tuple[str, ...], tuple[str, ...]]] = [
    (lambda x, m: m["y"](F.relu(m["a"](x))), ("a",), ("y",)),
    (lambda x, m: m["y"](torch.cat([m["a"](x[:, :, ::2]), m["b"](x[:, :, 1::2])], 2)), ("a", "b"), ("y",)),
    (lambda x, m: m["y"](F.relu(m["a"](x))) + m["z"](F.relu(m["b"](x))), ("a", "b"), ("y", "z")),
    (lambda x, m: m["y"](m["a"](2 * x - 1)).softmax(1), ("a",), ("y",)),
    (lambda x, m: m["a"](x) + m["y"](m["b"](x)), ("a", "b"), ("a", "y")),
    (lambda x, m: m["y"](m["b"](x + F.relu(m["a"](x))[:, :3])), ("a",), ("y",)),
    (lambda x, m: m["z"](h := F.relu(m["a"](x))) + m["y"](m["z"](h)), ("a",), ("z", "y")),
]


class Plain(nn.Module):
    def __init__(self, run: Callable[[Tensor, nn.ModuleDict], Tensor]) -> None:
        super().__init__()
        self.run = run
        self.m = nn.ModuleDict({
            **{name: nn.Conv2d(3, 6, 1) for name in "ab"}, **{name: nn.Conv2d(6, 6, 1) for name in "yz"},
        })  # fmt: skip

    def forward(self, x: Tensor) -> Tensor:
        return self.run(x, self.m).mean((2, 3))


def test_a_network_that_normalises_by_its_own_numbers_reads_the_picture_in_its_first_layer() -> None:
    class Normalising(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.a, self.z = nn.Conv2d(3, 6, 1), nn.Conv2d(6, 6, 1)
            self.std = nn.Parameter(torch.ones(3))
            self.register_buffer("mean", torch.rand(3))

        def forward(self, x: Tensor) -> Tensor:
            x = (x - self.mean.view(1, -1, 1, 1)) / torch.relu(self.std)[:, None, None]
            return self.z(self.a(x).relu()).mean((2, 3))

    model = captured(Normalising())
    assert (first_layers(model), last_layers(model)) == (("a",), ("z",))


def test_a_canvas_with_the_picture_on_it_is_no_tensor_of_the_network() -> None:
    class Canvas(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.a, self.z = nn.Conv2d(3, 6, 1), nn.Conv2d(6, 6, 1)
            self.canvas = nn.Parameter(torch.zeros(1, 3, 12, 12))

        def forward(self, x: Tensor) -> Tensor:
            y = self.canvas.repeat(x.shape[0], 1, 1, 1)
            y[:, :, 2:10, 2:10] = x
            return self.z(self.a(y).relu()).mean((2, 3))

    model = captured(Canvas())
    (layer,) = model.captured.graph.find_nodes(op="call_module", target="a")
    assert not is_held(layer.args[0])
    assert {str(node.target) for node in unscaled(model)} >= {"a", "relu", "z"}


@pytest.mark.parametrize(("run", "first", "last"), ENDS)
def test_first_layers_read_the_picture_and_last_ones_give_the_answer(run, first, last) -> None:
    model = captured(Plain(run))
    assert first_layers(model) == tuple(f"m.{name}" for name in first)
    assert last_layers(model) == tuple(f"m.{name}" for name in last)


POSITIVE: list[tuple[Callable[[Net, Tensor], Tensor], bool]] = [
    (lambda net, x: x, True),  # a ReLU
    (lambda net, x: net.a(x), False),
    (lambda net, x: net.pool(x), True),
    (lambda net, x: F.avg_pool2d(x, 2), True),
    (lambda net, x: x + x.sigmoid(), True),
    (lambda net, x: x - 1, False),
    (lambda net, x: x + 1, True),
    (lambda net, x: x + -1, False),
    (lambda net, x: x * -2, False),
    (lambda net, x: x + net.a(x), False),
    (lambda net, x: torch.cat([x, net.a(x).abs()], 1), True),
    (lambda net, x: torch.cat([x, net.a(x)], 1), False),
    (lambda net, x: torch.maximum(x, net.a(x)), True),
    (lambda net, x: torch.minimum(x, net.a(x)), False),
    (lambda net, x: F.pad(x, (1, 1)), True),
    (lambda net, x: F.pad(x, (1, 1), value=-1.0), False),
    (lambda net, x: net.a(x).clamp(0, 3), True),
    (lambda net, x: net.a(x).clamp(-1, 3), False),
    (lambda net, x: F.hardtanh(net.a(x), 0, 1), True),
    (lambda net, x: F.hardtanh(net.a(x)), False),
    (lambda net, x: F.relu6(net.a(x)), True),
    (lambda net, x: F.gelu(net.a(x)), False),
    (lambda net, x: F.leaky_relu(net.a(x)), False),
    (lambda net, x: F.adaptive_max_pool2d(x, 4), True),
    (lambda net, x: F.adaptive_max_pool2d(net.a(x), 4), False),
    (lambda net, x: x.index_select(1, torch.arange(6).flip(0)), True),
    (lambda net, x: net.a(x).index_select(1, torch.arange(6).flip(0)), False),
    (lambda net, x: x[:, torch.arange(6).flip(0)], True),
    (lambda net, x: net.n(x), False),
    (lambda net, x: F.dropout(x, 0.5, net.training), True),
]


class Value(nn.Module):
    """A network with a function's value, and the mean of 6 channels of it."""

    def __init__(self, run: Callable[[Net, Tensor], Tensor]) -> None:
        super().__init__()
        self.net = Net(run)

    def forward(self, x: Tensor) -> Tensor:
        return F.avg_pool2d(self.net.run(self.net, self.net.stem(x).relu()), 2)


@torch.no_grad()
@pytest.mark.parametrize(("run", "positive"), POSITIVE)
def test_what_no_weights_can_make_negative(run: Callable[[Net, Tensor], Tensor], positive: bool) -> None:
    model = captured(Value(run))
    (value,) = model.captured.graph.output_node().all_input_nodes
    assert (value in never_negative(model)) is positive
    if positive:
        assert model(torch.randn(4, 3, 8, 8)).min() >= 0


def test_whole_numbers_are_not_handed_on() -> None:
    """A truncating conversion changes numbers; a conversion between float types only moves them."""
    form = captured(Value(lambda net, x: x.to(torch.int32).to(x.dtype) + x.double().to(x.dtype)))
    found = [hands_on(form, node) for node in form.captured.graph.nodes if "to" in str(node.target)]
    assert found == [False, True, True, True]


def test_a_value_that_is_changed_in_place_may_be_negative() -> None:
    def run(net: Net, x: Tensor) -> Tensor:
        y = net.a(x).relu()
        y[:, 0] = -1.0
        return y

    model = captured(Value(run))
    (value,) = model.captured.graph.output_node().all_input_nodes
    assert model(torch.randn(4, 3, 8, 8)).min() == -1
    assert value not in never_negative(model)


UNSCALED: list[tuple[Callable[[Net, Tensor], Tensor], bool]] = [
    (lambda net, x: x, True),
    (lambda net, x: net.n(x), False),
    (lambda net, x: net.n(x).relu() + 1, False),
    (lambda net, x: x.sigmoid(), False),
    (lambda net, x: x.tanh() * 2, False),
    (lambda net, x: net.n(x) + x, True),
    (lambda net, x: net.a(net.n(x)), True),
    (lambda net, x: torch.einsum("bchw,dc->bdhw", net.n(x), net.fc.weight), True),
    (lambda net, x: F.layer_norm(x, (8, 8)), False),
]


@pytest.mark.parametrize(("run", "plain"), UNSCALED)
def test_values_of_any_size_are_sums_that_no_norm_has_scaled(run: Callable[[Net, Tensor], Tensor], plain: bool) -> None:
    model = captured(Value(run))
    (value,) = model.captured.graph.output_node().all_input_nodes
    assert (value in unscaled(model)) is plain
