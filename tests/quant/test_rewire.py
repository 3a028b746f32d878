"""Changes of a graph by quantization: ReLUs before signed codes are removed, values are coded once, pools move before norms.

Expected values are computed by hand, with torch.nn.functional on the network's own weights.
"""

from __future__ import annotations

from collections.abc import Callable

import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from bn_merge.merge import merge
from models import cost
from models.graph.flow import module, places
from models.graph.normal import NormalForm
from models.layers.quantizers.base import Quantizer
from quant.prepare import prepare
from quant.quantizer_spec import quantizer
from quant.spec import QuantSpec, affine_spec, uniform
from tests.tools.networks import captured

BINARY = QuantSpec(quantizer("b"), quantizer("b"), ("stem", "head"))


class Net(nn.Module):
    """A float stem and classifier; `run` computes the part between them from the stem's 6 channels."""

    def __init__(self, run: Callable[[Net, Tensor], Tensor]) -> None:
        super().__init__()
        self.run = run
        self.stem, self.n, self.pool = nn.Conv2d(3, 6, 3, padding=1), nn.BatchNorm2d(6), nn.MaxPool2d(2)
        self.a, self.b = nn.Conv2d(6, 6, 3, padding=1), nn.Conv2d(6, 6, 1)
        self.m, self.wide, self.head = nn.BatchNorm2d(6), nn.Conv2d(12, 6, 1), nn.Linear(6, 10)
        self.fc, self.fc2 = nn.Linear(6, 8), nn.Linear(8, 6)
        for norm in (self.n, self.m):
            nn.init.uniform_(norm.weight, 0.5, 2)
            nn.init.normal_(norm.bias)

    def forward(self, x: Tensor) -> Tensor:
        return self.head(self.run(self, self.stem(x)).flatten(2).mean(2))


def made(run: Callable[[Net, Tensor], Tensor]) -> tuple[Net, NormalForm]:
    """Return the network and its normal form in float64; they share tensors."""
    torch.manual_seed(0)
    net = Net(run).eval()
    model = captured(net).double()
    return net.double(), model


def pictures(count: int = 4) -> Tensor:
    return torch.randn(count, 3, 8, 8, generator=torch.Generator().manual_seed(1)).double()


def signs(x: Tensor) -> Tensor:
    return torch.where(x < 0, -1.0, 1.0).double()


def binary(conv: nn.Conv2d, codes: Tensor) -> Tensor:
    """Apply a layer of binary weights to codes: each filter centred over its inputs, sign times mean |w|."""
    weight = (conv.weight - conv.weight.mean(1, keepdim=True)).clamp(-1, 1)
    scale = weight.abs().mean((1, 2, 3))
    output = F.conv2d(codes, signs(weight), padding=conv.padding)
    return output * scale.reshape(-1, 1, 1) + conv.bias.reshape(-1, 1, 1)


def answered(net: Net, between: Tensor) -> Tensor:
    return net.head(between.flatten(2).mean(2))


def assert_computes(model: NormalForm, expected: Tensor) -> None:
    """Check the answers of the prepared network and of its merged form."""
    for network in (model, merge(model)):
        torch.testing.assert_close(network(pictures()), expected, rtol=0, atol=1e-12)


@torch.no_grad()
def test_a_convolution_reads_signs_before_a_relu_that_a_sum_reads_behind_it() -> None:
    def run(net: Net, x: Tensor) -> Tensor:
        y = net.n(x).relu()
        return net.a(y) + y

    net, model = made(run)
    y = net.n(net.stem(pictures()))
    assert_computes(prepare(model, BINARY), answered(net, binary(net.a, signs(y)) + y.relu()))


@torch.no_grad()
def test_a_layer_of_other_codes_reads_on_behind_the_relu() -> None:
    def run(net: Net, x: Tensor) -> Tensor:
        y = net.n(x).relu()
        return net.a(y) + net.b(y)

    net, model = made(run)
    y = net.n(net.stem(pictures()))
    spec = QuantSpec(quantizer("b"), quantizer("b"), ("stem", "head"), float_inputs=("b",))
    assert_computes(prepare(model, spec), answered(net, binary(net.a, signs(y)) + binary(net.b, y.relu())))
    kept = QuantSpec(quantizer("b"), quantizer("b"), ("stem", "head", "b"))
    assert_computes(prepare(model, kept), answered(net, binary(net.a, signs(y)) + net.b(y.relu())))


@torch.no_grad()
def test_joined_and_pooled_and_padded_values_are_read_as_they_are_before_their_relus() -> None:
    def run(net: Net, x: Tensor) -> Tensor:
        one, other = net.n(x).relu(), F.relu6(net.m(x))
        both = net.pool(torch.cat([one, other], 1))
        return net.wide(F.pad(both, (1, 1, 1, 1))) + F.pad(net.pool(one), (1, 1, 1, 1))

    net, model = made(run)
    x = net.stem(pictures())
    read = F.pad(net.pool(torch.cat([net.n(x), net.m(x)], 1)), (1, 1, 1, 1))
    expected = binary(net.wide, signs(read)) + F.pad(net.pool(net.n(x).relu()), (1, 1, 1, 1))
    assert_computes(prepare(model, BINARY), answered(net, expected))


@torch.no_grad()
def test_values_that_are_never_negative_otherwise_stay_so() -> None:
    """An average of ReLUs is not a ReLU: the layer reads the average."""

    def run(net: Net, x: Tensor) -> Tensor:
        return net.a(F.avg_pool2d(net.n(x).relu(), 2) - 0.5)

    net, model = made(run)
    y = F.avg_pool2d(net.n(net.stem(pictures())).relu(), 2) - 0.5
    assert_computes(prepare(model, BINARY), answered(net, binary(net.a, signs(y))))


def two_readers(net: Net, x: Tensor) -> Tensor:
    y = net.n(x).relu()
    return net.a(y) + net.b(y)


SHARING = {
    "affine": affine_spec(8, 8, 1, False), "folded": affine_spec(8, 8, 0, True), "dorefa": QuantSpec(quantizer(4), quantizer(4)),
    "lsq": uniform("lsq", 4, 4), "binary": QuantSpec(quantizer("b"), quantizer("b")),
}  # fmt: skip


@torch.no_grad()
@pytest.mark.parametrize("kind", SHARING)
def test_a_value_that_two_layers_read_is_coded_once(kind: str) -> None:
    spec = SHARING[kind].at_ends(["stem"], ["head"])
    _, model = made(two_readers)
    model = prepare(model, spec)
    shared = model.a.input_quantizer
    assert shared is model.b.input_quantizer
    assert (model.a.shares_input, model.b.shares_input) == (False, True)
    calls: list[Tensor] = []
    shared.register_forward_hook(lambda _, inputs, __: calls.append(inputs[0]))
    model.train()(pictures())
    assert len(calls) == 1
    model.eval()
    merged = merge(model)
    torch.testing.assert_close(merged(pictures()), model(pictures()), rtol=0, atol=1e-12)
    assert merged.a.input_quantizer is merged.b.input_quantizer
    for network in (model, merged):
        state = network.state_dict()
        held = [key.removeprefix("a.") for key in state if key.startswith("a.input_quantizer.")]
        assert held == [key.removeprefix("b.") for key in state if key.startswith("b.input_quantizer.")]
        assert all(torch.equal(state[f"a.{key}"], state[f"b.{key}"]) for key in held)
        alone = network.a.input_quantizer.constants
        bits = {row.name: row.bits for row in cost.layers(network, 8)}
        assert bits["a"] - bits["b"] == 32 * alone + network.a.weight_bits * 6 * 6 * (9 - 1)
    again = prepare(made(two_readers)[1], spec)
    again.load_state_dict(model.state_dict())
    assert torch.equal(again.eval()(pictures()), model(pictures()))


@torch.no_grad()
def test_layers_of_other_settings_have_quantizers_of_their_own() -> None:
    _, model = made(two_readers)
    spec = QuantSpec(quantizer(4), quantizer(4), ("stem", "head"), measured_inputs=("b",))
    model = prepare(model, spec)
    assert model.a.input_quantizer is not model.b.input_quantizer
    assert (model.a.shares_input, model.b.shares_input) == (False, False)


@torch.no_grad()
def test_layers_that_share_one_by_one_share_all() -> None:
    """`a` reads two values; every reader of one of them shares its quantizer."""

    def run(net: Net, x: Tensor) -> Tensor:
        y = net.n(x).relu()
        z = net.a(y).relu() + net.b(y)
        return net.a(z) + net.wide(torch.cat([z, z], 1)) + net.b(z.relu())

    _, model = made(run)
    model = prepare(model, affine_spec(8, 8, 1, False).at_ends(["stem"], ["head"])).train()
    model(pictures())
    assert model.a.input_quantizer is model.b.input_quantizer is not model.wide.input_quantizer
    model.eval()
    torch.testing.assert_close(merge(model)(pictures()), model(pictures()), rtol=0, atol=1e-12)


@torch.no_grad()
def test_a_convolution_that_runs_at_two_places_is_one_layer() -> None:
    def run(net: Net, x: Tensor) -> Tensor:
        return net.a(net.m(net.a(net.n(x).relu())).relu())

    net, model = made(run)
    y = net.n(net.stem(pictures()))
    expected = binary(net.a, signs(net.m(binary(net.a, signs(y)))))
    prepared = prepare(model, BINARY)
    assert [len(places(prepared)[name]) for name in ("a", "m")] == [2, 1]
    assert_computes(prepared, answered(net, expected))


def norm_relu_pool(net: Net, x: Tensor) -> Tensor:
    return net.b(net.pool(net.m(net.a(net.n(x).relu())).relu()))


@torch.no_grad()
def test_the_order_bacp_puts_a_pool_before_the_norm_and_its_relu() -> None:
    net, model = made(norm_relu_pool)
    net.m.weight[::2] *= -1  # so that the order matters
    model.m.weight.copy_(net.m.weight)
    y = net.n(net.stem(pictures()))
    before = {"cbap": net.pool(net.m(binary(net.a, signs(y)))), "bacp": net.m(net.pool(binary(net.a, signs(y))))}
    assert not torch.equal(*before.values())
    for order, value in before.items():
        spec = QuantSpec(quantizer("b"), quantizer("b"), ("stem", "head"), order=order)
        assert_computes(prepare(model, spec), answered(net, binary(net.b, signs(value))))
    wide = prepare(model, QuantSpec(quantizer("b"), quantizer(8), ("stem", "head"), order="bacp"))
    (norm,) = places(wide)["m"]
    assert isinstance(module(wide, norm.args[0]), nn.MaxPool2d)
    (relu,) = norm.users
    assert isinstance(module(wide, relu), nn.ReLU)  # before non-negative codes it stays


@torch.no_grad()
def test_a_pool_that_does_not_alone_read_the_norm_stays_where_it_is() -> None:
    def run(net: Net, x: Tensor) -> Tensor:
        y = net.m(net.a(net.n(x).relu()))
        return net.b(net.pool(y)) + F.avg_pool2d(y, 2)

    net, model = made(run)
    y = net.m(binary(net.a, signs(net.n(net.stem(pictures())))))
    spec = QuantSpec(quantizer("b"), quantizer("b"), ("stem", "head"), order="bacp")
    assert_computes(prepare(model, spec), answered(net, binary(net.b, signs(net.pool(y))) + F.avg_pool2d(y, 2)))


@torch.no_grad()
@pytest.mark.parametrize("kind", SHARING)
def test_linear_layers_over_positions(kind: str) -> None:
    """(B, N, C): each output column has one scale at every position."""

    def run(net: Net, x: Tensor) -> Tensor:
        tokens = net.n(x).flatten(2).transpose(1, 2)
        return net.fc2(net.fc(tokens).relu()).transpose(1, 2)

    _, model = made(run)
    model = prepare(model, SHARING[kind].at_ends(["stem"], ["head"])).train()
    model(pictures())
    model.eval()
    tokens = model.n(model.stem(pictures())).flatten(2).transpose(1, 2)
    for name in ("fc", "fc2"):
        layer = model.get_submodule(name)
        inputs: Quantizer = layer.input_quantizer
        (codes, scale), (w, w_scale) = inputs(tokens), layer.weight_codes()
        value = codes if scale is None else codes * scale
        weight = w if w_scale is None else w * w_scale.reshape(-1, *(1,) * (w.ndim - 1))
        tokens = F.linear(value, weight, layer.bias)
        if name == "fc" and kind != "binary":  # signs are taken before the ReLU
            tokens = tokens.relu()
    assert_computes(model, model.head(tokens.mean(1)))


@torch.no_grad()
@pytest.mark.parametrize("kind", SHARING)
def test_a_linear_layer_does_the_work_of_its_batch_norm(kind: str) -> None:
    torch.manual_seed(0)
    layers = (nn.Linear(192, 16), nn.BatchNorm1d(16), nn.ReLU(), nn.Linear(16, 12), nn.BatchNorm1d(12), nn.ReLU())
    model = captured(nn.Sequential(nn.Flatten(), *layers, nn.Linear(12, 10))).double()
    model = prepare(model, SHARING[kind].at_ends(["1"], ["7"])).train()
    model(pictures(8))
    merged = merge(model.eval())
    assert not any(isinstance(m, nn.BatchNorm1d) for m in merged.modules())
    torch.testing.assert_close(merged(pictures()), model(pictures()), rtol=0, atol=1e-12)


@torch.no_grad()
def test_where_values_are_changed_in_place_nothing_moves() -> None:
    """`y` changes later, so the value before the ReLU may no longer exist."""

    def run(net: Net, x: Tensor) -> Tensor:
        y = net.n(x)
        z = y.relu()
        y[:, :1].pow_(2)  # which capture leaves in place
        y[:, 1:3] += x[:, 1:3]
        return net.a(z) + net.b(y)

    net, model = made(run)
    y = net.n(x := net.stem(pictures()))
    changed = torch.cat([y[:, :1] ** 2, y[:, 1:3] + x[:, 1:3], y[:, 3:]], 1)
    assert_computes(
        prepare(model, BINARY), answered(net, binary(net.a, signs(y.relu())) + binary(net.b, signs(changed)))
    )
