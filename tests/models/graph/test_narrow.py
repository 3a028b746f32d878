"""Narrowing: the masked and the narrowed network give the same answers, or the widths are refused."""

from __future__ import annotations

import copy
import random
from collections import Counter, defaultdict

import pytest
import torch
from torch import nn

import models
from models.check import Misdeclared
from models.graph.capture.form import capture
from models.graph.channels.classes import Channels, channels
from models.graph.normal import NormalForm
from models.graph.surgery.narrow import masked, narrowed
from models.graph.surgery.resize import NotLegal
from models.graph.surgery.stored import as_stored
from tests.tools import cases
from tests.tools.cases import NAMES
from tests.tools.networks import NARROW
from tests.tools.random_graphs import SIZE, RandomNetwork

LIMIT = 1e-10


def with_noise(model: nn.Module) -> nn.Module:
    """Set a network to float64 and eval mode, with scales of both signs and statistics unlike a fresh network's."""
    generator = torch.Generator().manual_seed(1)
    for module in model.modules():
        if isinstance(module, nn.modules.batchnorm._BatchNorm):
            module.weight.data = torch.rand(module.weight.shape, generator=generator) + 0.1
            module.weight.data *= torch.randn(module.weight.shape, generator=generator).sign()
            module.bias.data = torch.randn(module.bias.shape, generator=generator) * 0.3
            if module.running_mean is not None:
                module.running_mean = torch.randn(module.running_mean.shape, generator=generator) * 0.1
                module.running_var = torch.rand(module.running_var.shape, generator=generator) + 0.5
    return model.double().eval()


def a_share(found: Channels, share: float, seed: int = 0) -> set[int]:
    """Draw the same share of each kind of class."""
    kinds: dict[object, list[int]] = defaultdict(list)
    for cls, signature in found.signatures.items():
        if cls not in found.fixed:
            kinds[signature].append(cls)
    draw = random.Random(seed)
    return {cls for kind in kinds.values() for cls in draw.sample(kind, int(share * len(kind)))}


def differ(one: nn.Module, other: nn.Module, size: int, channels: int = 3) -> float:
    """Return the largest difference of two networks' answers, relative to the largest answer."""
    x = torch.randn(3, channels, size, size, dtype=torch.float64, generator=torch.Generator().manual_seed(2))
    with torch.no_grad():
        a, b = one(x), other(x)
    return ((a - b).abs().max() / a.abs().max()).item()


def cut(model: nn.Module, name: str, size: int, share: float, inputs: int = 3) -> tuple[NormalForm, ...]:
    """Return the normal form, the masked and the narrowed network."""
    form = capture(copy.deepcopy(model), (inputs, size, size), name)
    found = channels(form)
    dropped = a_share(found, share)
    return form, masked(form, found, dropped), narrowed(model, form, found, dropped, name)


@pytest.mark.parametrize("share", [pytest.param(0.25, marks=pytest.mark.slow), 0.5])
@pytest.mark.parametrize("name", NAMES)
def test_masked_is_narrowed(name: str, share: float) -> None:
    torch.manual_seed(0)
    model = with_noise(getattr(cases, name)(10))
    form, silenced, small = cut(model, name, 32, share, 1 if name == "gray" else 3)
    assert differ(silenced, small, 32, form.captured.picture[0]) < LIMIT
    assert differ(silenced, form, 32, form.captured.picture[0]) > 1e-3  # channels that matter were cut
    assert sum(p.numel() for p in small.parameters()) < 0.95 * sum(p.numel() for p in form.parameters())


@pytest.mark.parametrize("whole", [False, pytest.param(True, marks=pytest.mark.slow)], ids=["small", "whole"])
@pytest.mark.parametrize("name", models.names())
def test_masked_is_narrowed_in_the_toolkits_own_networks(name: str, whole: bool) -> None:
    """The networks have small widths and pictures, or their own."""
    torch.manual_seed(0)
    size, cfg = (32, None) if whole else (8, [4 * width for width in NARROW[name]])
    form, silenced, small = cut(with_noise(models.build(name, cfg)), name, size, 0.5)
    assert differ(silenced, small, size) < LIMIT
    assert differ(silenced, form, size) > 1e-3


def test_a_narrowed_network_is_a_network_again() -> None:
    """It is captured, pruned and saved like any other; the user's class with the same widths loads its file."""
    model = with_noise(cases.Residual())
    form, _, small = cut(model, "Residual", 32, 0.25)
    found = channels(small)
    dropped = a_share(found, 0.5, seed=1)
    again = narrowed(copy.deepcopy(model), form, channels(form), a_share(channels(form), 0.25), "Residual")
    assert torch.equal(small.state_dict()["c1.weight"], again.state_dict()["c1.weight"])
    assert sum(p.numel() for p in masked(small, found, dropped).parameters()) == sum(
        p.numel() for p in small.parameters()
    )


class TwoNames(nn.Module):
    """One layer under two names, whose weight a third layer shares."""

    def __init__(self) -> None:
        super().__init__()
        self.stem, self.a, self.c = cases.conv_bn(3, 16), cases.conv_bn(16, 16), cases.conv_bn(16, 16)
        self.b = self.a
        self.c[0].weight = self.a[0].weight
        self.head = cases.Head(16, 4)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.head(self.c(self.b(self.a(self.stem(x)))))


def test_a_layer_of_two_names_and_its_twin_stay_one_tensor() -> None:
    torch.manual_seed(0)
    form, silenced, small = cut(with_noise(TwoNames()), "TwoNames", 16, 0.5)
    assert differ(silenced, small, 16) < LIMIT
    assert small.get_submodule("a.0").weight is small.get_submodule("c.0").weight
    assert list(small.state_dict()) == list(form.state_dict())


@pytest.mark.parametrize("bias", [True, False])
@pytest.mark.parametrize(
    ("sizes", "left"),
    [((8, 8, 8), (4, 4, 4)), ((8, 16, 8), (4, 8, 4)), ((16, 8, 8), (8, 4, 4)), ((16, 8, 4), (8, 4, 4)), ((16, 24, 2), (8, 12, 2))],
    ids=str,
)  # fmt: skip
def test_a_transposed_convolution_in_groups_loses_groups_or_equally_many_channels_in_each(
    sizes: tuple[int, int, int], left: tuple[int, int, int], bias: bool
) -> None:
    """Sizes are inputs, outputs and groups. With one or two inputs a group, whole groups go."""
    torch.manual_seed(0)
    first, last, groups = sizes
    up = nn.ConvTranspose2d(first, last, 4, 2, 1, groups=groups, bias=bias)
    model = with_noise(nn.Sequential(cases.conv_bn(3, first), up, nn.BatchNorm2d(last), nn.ReLU(), cases.Head(last, 4)))
    form, silenced, small = cut(model, "transposed", 16, 0.5)
    assert differ(silenced, small, 16) < LIMIT
    assert differ(silenced, form, 16) > 1e-6
    layer = small.get_submodule("1")
    assert (layer.in_channels, layer.out_channels, layer.groups) == left
    assert layer.weight.shape[:2] == (left[0], left[1] // left[2])
    stored = {key: tuple(tensor.shape) for key, tensor in small.state_dict().items()}
    again = capture(as_stored(model, (3, 16, 16), "transposed", stored).model, (3, 16, 16), "transposed")
    again.load_state_dict(small.state_dict())
    assert differ(again, small, 16) == 0


class Keeps(nn.Module):
    """Code that keeps what it has computed: the weight of a layer, and the last maps."""

    def __init__(self) -> None:
        super().__init__()
        self.stem, self.mid, self.maps = cases.conv_bn(3, 16), cases.conv_bn(16, 16), list[torch.Tensor]()
        with pytest.warns(FutureWarning, match="weight_norm"):
            self.last = nn.utils.weight_norm(nn.Conv2d(16, 16, 1))
        self.head = cases.Head(16, 4)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        self.maps = [self.stem(x)]
        return self.head(self.last(self.mid(self.maps[0])))


def test_values_that_the_code_keeps_do_not_hinder_a_cut() -> None:
    torch.manual_seed(0)
    model = with_noise(Keeps())
    form = capture(model, (3, 16, 16), "Keeps")
    found = channels(form)
    dropped = a_share(found, 0.5)
    model(torch.randn(2, 3, 16, 16, dtype=torch.float64))
    small = narrowed(model, form, found, dropped, "Keeps")
    assert differ(masked(form, found, dropped), small, 16) < LIMIT
    assert len(small.get_submodule("stem.0").weight) == 8
    assert small.state_dict()["last.weight_v"].shape == (16, 16, 1, 1)  # a computed weight keeps its channels


def outcome(seed: int) -> str:
    """Prune a random network at random; return `equal`, `uncut` if nothing can be pruned, or the reason of a refusal.

    Raises:
        AssertionError: if the masked and the narrowed network differ.
    """
    model = RandomNetwork(seed).double().eval()
    said = f"{seed}: {', '.join(model.said)}"
    try:
        form, silenced, small = cut(model, said, SIZE, 0.5)
    except (NotLegal, Misdeclared) as fault:
        return type(fault).__name__
    assert differ(silenced, small, SIZE) < LIMIT, said
    fewer = sum(p.numel() for p in small.parameters()) < sum(p.numel() for p in form.parameters())
    return "equal" if fewer else "uncut"


def test_random_graphs_are_cut_exactly_or_refused() -> None:
    found = Counter(outcome(seed) for seed in range(8))
    assert found["equal"] >= 7, found


@pytest.mark.slow
def test_two_thousand_random_graphs() -> None:
    found = Counter(outcome(seed) for seed in range(2000))
    print(found)
    assert found["equal"] >= 1750, found
