"""Constant outputs of dropped channels move into biases: a network with scales of 0 equals the narrowed one, where that can be exact."""

from __future__ import annotations

import copy

import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from models.graph.capture.form import capture
from models.graph.channels import labels
from models.graph.channels.classes import Channels, channels
from models.graph.normal import NormalForm
from models.graph.surgery import absorb
from models.graph.surgery.narrow import masked, narrowed
from tests.tools import cases, random_graphs


def conv_bn(
    i: int, o: int, act: nn.Module, bias: bool = False, k: int = 1, groups: int = 1, padding: int = 0
) -> nn.Module:
    return nn.Sequential(nn.Conv2d(i, o, k, bias=bias, groups=groups, padding=padding), nn.BatchNorm2d(o), act)


def chain() -> nn.Module:
    """Return a NIN without padding: biases, running means, activations that are not 0 at 0, pools, a 3x3 reader."""
    return nn.Sequential(
        conv_bn(3, 8, nn.ReLU(), k=3), conv_bn(8, 12, nn.Sigmoid()), nn.MaxPool2d(2, 2, 1), conv_bn(12, 8, nn.Hardswish(), True),
        nn.Dropout(0.5), nn.AvgPool2d(2), conv_bn(8, 8, nn.GELU(), k=3), nn.Conv2d(8, 6, 1), nn.BatchNorm2d(6), nn.ReLU(),
        nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(6, 5),
    )  # fmt: skip


class Stream(nn.Module):
    """A residual network: the stream is the sum of two batch norms' outputs."""

    def __init__(self) -> None:
        super().__init__()
        self.stem, self.a, self.b = conv_bn(3, 8, nn.ReLU()), conv_bn(8, 12, nn.ReLU()), conv_bn(12, 8, nn.Identity())
        self.head = nn.Linear(8, 5)

    def forward(self, x: Tensor) -> Tensor:
        x = self.stem(x)
        return self.head(F.relu(x + self.b(self.a(x))).mean((2, 3)))


def halves() -> nn.Module:
    """Return a network with products of halves of channels, and a pool that returns the places of its numbers."""
    return nn.Sequential(
        conv_bn(3, 8, nn.GLU(1)), conv_bn(4, 8, nn.Sigmoid(), k=3), nn.AdaptiveMaxPool2d(3), nn.Conv2d(8, 6, 1),
        nn.BatchNorm2d(6), nn.ReLU(), nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(6, 5),
    )  # fmt: skip


class Concatenated(nn.Module):
    """A depthwise layer, which passes constants on and adds its own bias, and two concatenated branches."""

    def __init__(self) -> None:
        super().__init__()
        self.a, self.b = conv_bn(3, 6, nn.Sigmoid()), conv_bn(3, 4, nn.ReLU())
        self.depth, self.mix, self.head = nn.Conv2d(6, 6, 3, groups=6), nn.Conv2d(10, 8, 1), nn.Linear(8, 5)

    def forward(self, x: Tensor) -> Tensor:
        y = torch.cat([self.depth(self.a(x)), self.b(x)[:, :, 1:-1, 1:-1]], 1)
        return self.head(torch.relu(self.mix(y)).mean((2, 3)))


def disturbed(model: nn.Module, size: int = 16) -> nn.Module:
    """Convert a network to float64, with random scales and biases in its batch norms and the statistics of a few pictures."""
    source = torch.Generator().manual_seed(0)
    for module in model.modules():
        if isinstance(module, nn.modules.batchnorm._BatchNorm):
            module.weight.data = torch.rand(module.weight.shape, generator=source) + 0.5
            module.bias.data = torch.rand(module.bias.shape, generator=source) - 0.5
            module.momentum = None
    model.double().train()(torch.randn(8, 3, size, size, generator=source, dtype=torch.float64))
    return model.eval()


def gated(found: Channels) -> list[int]:
    """Return every third class that a batch norm scales."""
    classes = {cls: None for p in found.places if p.norm for cls in p.classes.tolist() if cls not in found.fixed}
    return [*classes][::3]


def at_zero(form: NormalForm, found: Channels, dropped: list[int]) -> NormalForm:
    """Return the network with the scales of dropped channels set to 0 and nothing else changed: the expected result."""
    form = copy.deepcopy(form)
    for p in found.places:
        if p.norm:
            form.get_parameter(p.tensor).data[torch.isin(p.classes, torch.tensor(dropped))] = 0
    return form


def apart(one: nn.Module, other: nn.Module, size: int = 16) -> float:
    x = torch.randn(3, 3, size, size, dtype=torch.float64, generator=torch.Generator().manual_seed(1))
    with torch.no_grad():
        expected, found = one.eval()(x), other.eval()(x)
    assert float((expected[0] - expected[1]).abs().max()) > 1e-3 * float(
        expected.abs().max()
    )  # the answers depend on the picture
    return float((expected - found).abs().max() / expected.abs().max())


@pytest.mark.parametrize("make", [chain, Stream, halves, Concatenated])
def test_a_network_with_scales_of_0_is_the_narrowed_one(make) -> None:
    torch.manual_seed(0)
    model = disturbed(make())
    form = capture(model, (3, 16, 16), "net")
    found = channels(form)
    dropped = gated(found)
    ready = absorb.absorb(form, found, dropped)
    small = narrowed(model, ready.model, found, frozenset(dropped), "net")
    silenced = at_zero(form, found, dropped)
    assert ready.left == set()
    assert apart(silenced, small) <= 1e-10
    assert apart(masked(ready.model, found, dropped), small) <= 1e-10
    assert (
        apart(silenced, narrowed(model, form, found, frozenset(dropped), "net")) > 1e-3
    )  # the change is large enough for a notice
    assert apart(form, capture(model, (3, 16, 16), "net")) == 0  # a copy was changed


REAL = {name: (getattr(cases, name), 32) for name in ("mobilenet_v1", "ShuffleUnits", "ConstantChannels")}
RANDOM = {f"random {seed}": (lambda seed=seed: random_graphs.RandomNetwork(seed), 8) for seed in (1, 2, 3, 5, 11, 13)}


@pytest.mark.parametrize("name", [*REAL, *RANDOM])
def test_it_is_exact_where_readers_pad_nothing(name: str) -> None:
    """It is exact for any reader: shuffles, chunks, gates, depthwise layers."""
    make, size = {**REAL, **RANDOM}[name]
    form = capture(disturbed(make(), size), (3, size, size), "net", check=False)
    found = channels(form)
    dropped = gated(found)
    ready = absorb.absorb(form, found, dropped)
    assert ready.left == set()
    assert apart(at_zero(form, found, dropped), masked(ready.model, found, dropped), size) <= 1e-10


def test_what_is_padded_stays_and_is_counted() -> None:
    """A zero-padded 3x3 reader reads 0 at the border: only channels that give 0 are the same everywhere."""
    torch.manual_seed(0)
    model = disturbed(
        nn.Sequential(conv_bn(3, 8, nn.ReLU()), conv_bn(8, 4, nn.ReLU(), True, k=3, padding=1), cases.Head(4, 5))
    )
    model[0][1].bias.data = torch.tensor([-1.0, 1, -1, 1, 1, 1, 1, 1]).double()
    form = capture(model, (3, 16, 16), "net")
    found = channels(form)
    first = next(p for p in found.places if p.tensor == "0.1.weight").classes.tolist()
    last = next(p for p in found.places if p.tensor == "1.1.weight").classes.tolist()
    ready = absorb.absorb(form, found, [first[0], first[1], first[2], last[0]])
    assert ready.left == {first[1]}
    assert torch.equal(ready.model.get_parameter("1.0.bias"), form.get_parameter("1.0.bias"))
    said = model[1][1].bias[0].relu() * model[2].fc.weight[:, 0]
    assert torch.allclose(ready.model.get_parameter("2.fc.bias"), model[2].fc.bias + said)


class Odd(nn.Module):
    """Readers whose bias cannot absorb a constant: a gate by multiplication, two readers of a layer without a bias, a comparison."""

    def __init__(self, kind: str) -> None:
        super().__init__()
        self.kind, self.a, self.fc = kind, conv_bn(3, 6, nn.Sigmoid()), nn.Linear(6, 6)
        self.c, self.n, self.m, self.head = (
            nn.Conv2d(6, 6, 1, bias=False),
            nn.BatchNorm2d(6),
            nn.BatchNorm2d(6),
            nn.Linear(6, 5),
        )

    def forward(self, x: Tensor) -> Tensor:
        x = self.a(x)
        if self.kind == "gate":
            x = (
                x * F.hardsigmoid(100 + self.fc(x.mean((2, 3))))[:, :, None, None]
            )  # 1 for any picture, but that is not known
        y = self.c(x)
        y = (
            self.n(y) + self.m(y)
            if self.kind == "two"
            else self.n(self.c(torch.relu(y)))
            if self.kind == "twice"
            else self.n(y)
        )
        return self.head(y.mean((2, 3)))


@pytest.mark.parametrize("kind", ["gate", "two", "twice"])
def test_what_no_bias_can_say_is_left(kind: str) -> None:
    torch.manual_seed(0)
    model = disturbed(Odd(kind))
    form = capture(model, (3, 16, 16), "net")
    found = channels(form)
    first = next(p for p in found.places if p.tensor == "a.1.weight").classes.tolist()
    ready = absorb.absorb(form, found, first[:2])
    assert ready.left == {*first[:2]}
    for name, tensor in form.state_dict().items():
        if name not in ("fc.bias", "head.bias"):
            assert torch.equal(tensor, ready.model.state_dict()[name]), name


class Places(nn.Module):
    """A linear layer over 6 channels, and a batch norm over 6 places after it."""

    def __init__(self) -> None:
        super().__init__()
        self.a, self.fc, self.norm = conv_bn(3, 6, nn.Sigmoid()), nn.Linear(6, 6, bias=False), nn.BatchNorm1d(6)
        self.head = nn.Linear(6, 5)

    def forward(self, x: Tensor) -> Tensor:
        tokens = F.adaptive_avg_pool2d(self.a(x), (2, 3)).flatten(2).transpose(1, 2)
        return self.head(self.norm(self.fc(tokens)).mean(1))


def test_a_norm_over_places_takes_nothing_of_channels() -> None:
    torch.manual_seed(0)
    form = capture(disturbed(Places()), (3, 16, 16), "net")
    found = channels(form)
    first = next(p for p in found.places if p.tensor == "a.1.weight").classes.tolist()
    ready = absorb.absorb(form, found, first[:2])
    assert ready.left == {*first[:2]}
    assert torch.equal(ready.model.norm.running_mean, form.norm.running_mean)


class Gated(nn.Module):
    """Squeeze-and-excite after a ReLU, whose dropped channels give 0."""

    def __init__(self) -> None:
        super().__init__()
        self.a, self.gate, self.head = conv_bn(3, 6, nn.ReLU()), nn.Conv2d(6, 6, 1), nn.Linear(6, 5)

    def forward(self, x: Tensor) -> Tensor:
        x = self.a(x)
        return self.head((x * self.gate(x.mean((2, 3), keepdim=True)).sigmoid()).mean((2, 3)))


def test_zero_times_a_gate_is_zero() -> None:
    torch.manual_seed(0)
    model = disturbed(Gated())
    model.a[1].bias.data.fill_(-1)
    form = capture(model, (3, 16, 16), "net")
    found = channels(form)
    first = next(p for p in found.places if p.tensor == "a.1.weight").classes.tolist()
    ready = absorb.absorb(form, found, first[:2])
    assert not ready.left
    assert apart(at_zero(form, found, first[:2]), masked(ready.model, found, first[:2])) < 1e-12


@pytest.mark.parametrize("bias", [True, False])
def test_a_batch_norm_may_have_no_bias(bias: bool) -> None:
    torch.manual_seed(0)
    model = disturbed(nn.Sequential(nn.Conv2d(3, 6, 3), nn.BatchNorm2d(6), nn.ReLU(), cases.Head(6, 5)))
    if not bias:
        model[1].bias = None
    form = capture(model, (3, 16, 16), "net")
    found = channels(form)
    first = next(p for p in found.places if p.tensor == "1.weight").classes.tolist()
    ready = absorb.absorb(form, found, first[:2])
    assert apart(at_zero(form, found, first[:2]), masked(ready.model, found, first[:2])) < 1e-12


def test_nothing_known_comes_of_what_is_not() -> None:
    """Each operation that counts as known turns NaN into NaN, here or by the guard of elementwise operations."""
    nan = torch.full((1, 2, 4, 4), torch.nan, dtype=torch.float64)
    calls = {
        "max_pool2d": (2,), "avg_pool2d": (2,), "adaptive_avg_pool2d": ([1, 1],), "upsample_nearest2d": ([8, 8],),
        "upsample_bilinear2d": ([8, 8], False), "upsample_bicubic2d": ([8, 8], False), "_upsample_nearest_exact2d": ([8, 8],),
        "mean": (), "sum": (), "amax": (), "amin": (), "var": (), "std": (), "linalg_vector_norm": (),
    }  # fmt: skip
    known = {packet.__name__ for packet in labels.SPATIAL | labels.REDUCTIONS}
    pairs = {"var_mean", "std_mean"}
    assert {name for name in known if not name.endswith(("1d", "3d"))} == {*calls, *pairs}
    for name, args in {**calls, "glu": (1,)}.items():
        assert getattr(torch.ops.aten, name)(nan, *args).isnan().all(), name
    for name in pairs:
        assert all(part.isnan().all() for part in getattr(torch.ops.aten, name)(nan)), name
    for name, args in (("adaptive_max_pool2d", ([1, 1],)), ("max_pool2d_with_indices", ([2, 2],))):
        assert getattr(torch.ops.aten, name)(nan, *args)[0].isnan().all(), name


def test_nothing_dropped_changes_nothing() -> None:
    form = capture(disturbed(Stream()), (3, 16, 16), "net")
    ready = absorb.absorb(form, channels(form), ())
    assert ready.left == set()
    assert all(
        torch.equal(a, b) for a, b in zip(form.state_dict().values(), ready.model.state_dict().values(), strict=True)
    )


def test_channels_without_a_batch_norm_have_no_constant_that_is_left() -> None:
    net = nn.Sequential(
        nn.Conv2d(3, 8, 3), nn.GELU(), nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(8, 12), nn.GELU(), nn.Linear(12, 10)
    ).eval()  # fmt: skip
    form = capture(net, (3, 8, 8), "bare")
    found = channels(form)
    rows = next(p for p in found.places if (p.tensor, p.axis) == ("4.weight", 0))
    assert absorb.absorb(form, found, {*rows.classes[:4].tolist()}).left == set()
