"""Costs of networks equal sums by hand: every family, plain, grouped, depthwise, pruned and merged."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from math import prod

import pytest
import torch
from torch import Tensor, nn

import models
from bn_merge.merge import merge
from models import cost
from models.layers.fold import Flip
from quant.prepare import prepare
from quant.quantizer_spec import quantizer
from quant.spec import QuantSpec, affine_spec
from tests.tools.networks import captured, ends, form
from tests.tools.residual import ARCH

# nin with 8 channels everywhere: 5x5x3x8 + 2 (8x8) + 5x5x8x8 + 2 (8x8) + 3x3x8x8 + 8x8 + 8x10 weights
ENDS = 600 + 80
INNER = 64 + 64 + 1600 + 64 + 64 + 576 + 64
FILTERS = 8 * 8 + 10
NORM = 4 * FILTERS  # gamma, beta, mean, variance
MACS = (
    64 * (600 + 64 + 64) + 16 * (1600 + 64 + 64) + 4 * (576 + 64 + 80)
)  # 8 x 8 pictures, pooled twice to 4 x 4, 2 x 2


def bits(model: nn.Module) -> int:
    return cost.total(cost.layers(model, 8), "bits")


def nin(spec: QuantSpec | None = None) -> nn.Module:
    torch.manual_seed(0)
    model = form("nin", [8] * 8)
    return prepare(model, spec.at_ends(*ends(model))) if spec else model


def dorefa(weight: int | str, activation: int | str, **more) -> QuantSpec:
    return QuantSpec(quantizer(weight, **more), quantizer(activation))


# before and after merging. A merged layer has a bias for each filter and, unless its weights are float, a scale for each filter
SIZES = {
    "float": (None, 32 * (ENDS + INNER + FILTERS + NORM), 32 * (ENDS + INNER + FILTERS)),
    "w4a4": (dorefa(4, 4), 4 * INNER + 32 * (ENDS + FILTERS + NORM), 4 * INNER + 32 * (ENDS + FILTERS + 56)),
    "w8a2": (dorefa(8, 2), 8 * INNER + 32 * (ENDS + FILTERS + NORM), 8 * INNER + 32 * (ENDS + FILTERS + 56)),
    "wta8": (dorefa("t", 8), 2 * INNER + 32 * (ENDS + FILTERS + 56 + NORM), 2 * INNER + 32 * (ENDS + FILTERS + 56)),
    "wba8": (dorefa("b", 8), 1 * INNER + 32 * (ENDS + FILTERS + 56 + NORM), 1 * INNER + 32 * (ENDS + FILTERS + 56)),
    "wba8 without scale": (
        dorefa("b", 8, scale=False), 1 * INNER + 32 * (ENDS + FILTERS + NORM), 1 * INNER + 32 * (ENDS + FILTERS + 56),
    ),
    # only the layer before the float last one needs a scale: the others are read for their sign
    "wbab": (dorefa("b", "b"), 1 * INNER + 32 * (ENDS + FILTERS + 56 + NORM), 1 * INNER + 32 * (ENDS + FILTERS + 8)),
    # symmetric: a scale for each filter, and one for the input of all layers except the first
    "int8 symmetric": (
        affine_spec(8, 8, 0, False),
        8 * (ENDS + INNER) + 32 * (FILTERS + FILTERS + NORM + 8), 8 * (ENDS + INNER) + 32 * (2 * FILTERS + 8),
    ),
    # asymmetric: a zero point beside each scale
    "int8 asymmetric": (
        affine_spec(8, 8, 1, False),
        8 * (ENDS + INNER) + 32 * (FILTERS + 2 * FILTERS + NORM + 16), 8 * (ENDS + INNER) + 32 * (3 * FILTERS + 16),
    ),
    "int8 asymmetric folded": (
        affine_spec(8, 8, 1, True),
        8 * (ENDS + INNER) + 32 * (FILTERS + 2 * FILTERS + NORM + 16), 8 * (ENDS + INNER) + 32 * (3 * FILTERS + 16),
    ),
    "int8 per tensor": (  # merged: the batch norm makes the one scale of a layer one a filter, its zero point stays
        affine_spec(8, 8, 1, False, per_channel=False),
        8 * (ENDS + INNER) + 32 * (FILTERS + 2 * 9 + NORM + 16), 8 * (ENDS + INNER) + 32 * (2 * FILTERS + 9 + 16),
    ),
    "int4 with float inputs": (
        affine_spec(4, 32, 0, False),
        4 * (ENDS + INNER) + 32 * (FILTERS + FILTERS + NORM), 4 * (ENDS + INNER) + 32 * 2 * FILTERS,
    ),
}  # fmt: skip


@pytest.mark.parametrize("family", SIZES)
def test_sizes_of_every_family(family: str) -> None:
    spec, before, after = SIZES[family]
    model = nin(spec)
    merged = merge(model)
    assert bits(model) == before
    assert bits(merged) == after
    widths = {row.name: row.weight_bits for row in cost.layers(merged, 8) if row.macs}
    assert {widths[f"block{n}.conv"] for n in range(2, 9)} == {spec.weight.bits if spec else 32}
    assert widths["block1.conv"] == (spec.weight.bits if spec and spec.weight.kind == "affine" else 32)
    for network in (model, merged):
        assert cost.total(cost.layers(network, 8), "macs") == MACS


def test_a_turned_sign_behind_a_pool_takes_a_bit_a_channel() -> None:
    model = nin(replace(dorefa("b", "b"), order="bacp"))
    model.block3.bn.weight.data[0] = -1
    merged = merge(model)
    assert isinstance(merged.block3.bn, Flip)
    assert bits(merged) == SIZES["wbab"][2] + 8


def test_groups_hold_and_multiply_less() -> None:
    cfg = [2, 4, 16, 32, 8, 32, 32, 8]  # in groups of 1, 2, 2, 16, 4, 4, 32, 8, 1
    inner = 4 * 1 + 16 * 2 + 32 * 9 + 8 * 8 + 32 * 2 + 32 * 9 + 8 * 4
    filters, weights = sum(cfg) + 10, 2 * 75 + inner + 10 * 8
    model = form("nin_gc", cfg)
    rows = cost.layers(model, 8)
    assert cost.total(rows, "params") == weights + 3 * filters  # bias, gamma, beta
    assert cost.total(rows, "macs") == 64 * (150 + 4 + 32) + 16 * (288 + 64 + 64) + 4 * (288 + 32 + 80)
    assert bits(model) == 32 * (weights + filters + 4 * filters)
    ternary = prepare(model, dorefa("t", 4).at_ends(*ends(model)))
    assert bits(ternary) == 2 * inner + 32 * (150 + 80 + filters + 4 * filters + sum(cfg[1:]))
    assert bits(merge(ternary)) == 2 * inner + 32 * (150 + 80 + filters + sum(cfg[1:]))


def depthwise(cfg: list[int]) -> tuple[int, int, int, int]:
    """Return the counts of `separable`: weights of both ends, weights of all pairs, filters of the pairs, batch norm channels."""
    sizes = [1, 1, 9, 1, 1, 9, 1]
    pairs = sum(after * k + after * after for after, k in zip(cfg[1:], sizes, strict=True))
    return 75 * cfg[0] + 10 * cfg[-1], pairs, 2 * sum(cfg[1:]), sum(cfg) + 10


@pytest.mark.parametrize(("weight", "width"), [("b", 1), ("t", 2)])
def test_depthwise_pairs_keep_a_scale_even_for_a_filter_of_one_weight(weight: str, width: int) -> None:
    cfg = [4, 4, 8, 8, 8, 16, 16, 16]
    outer, pairs, filters, normed = depthwise(cfg)
    model = form("separable", cfg)
    biases = cfg[0] + 10 + filters
    assert cost.total(cost.layers(model, 8), "params") == outer + pairs + biases + 2 * normed
    assert bits(model) == 32 * (outer + pairs + biases + 4 * normed)
    small = prepare(model, dorefa(weight, "b").at_ends(*ends(model)))
    assert bits(small) == width * pairs + 32 * (outer + biases + filters + 4 * normed)
    one = small.block2.conv1  # 4 filters of 1 weight each: a code, a scale, a bias
    assert one.stored_bits() == 4 * (width + 32 + 32)


def test_pruned_networks_cost_what_their_widths_say() -> None:
    small = form("nin", [3, 7, 5, 8, 6, 4, 2, 7])
    widths = [3, *small.cfg, 10]
    weights = [a * b * k * k for a, b, k in zip(widths, widths[1:], (5, 1, 1, 5, 1, 1, 3, 1, 1), strict=False)]
    filters = sum(widths[1:])
    assert bits(small) == 32 * (sum(weights) + 5 * filters)
    whole = prepare(small, affine_spec(8, 8, 1, False).at_ends(*ends(small)))
    assert bits(whole) == 8 * sum(weights) + 32 * (3 * filters + 4 * filters + 16)
    assert bits(merge(whole)) == 8 * sum(weights) + 32 * (3 * filters + 16)
    four = prepare(small, dorefa(4, 4).at_ends(*ends(small)))
    inner, outer = sum(weights[1:-1]), weights[0] + weights[-1]
    assert bits(merge(four)) == 4 * inner + 32 * (outer + filters + filters - widths[1] - 10)


def test_linear_layers_count_like_convolutions() -> None:
    model = form("slimming", [4, 6, 8])  # only the linear layer has a bias
    weights, filters = 3 * 4 * 49 + 4 * 6 * 9 + 6 * 8 * 9, 4 + 6 + 8
    assert bits(model) == 32 * (weights + 4 * filters + 8 * 10 + 10)
    spec = affine_spec(8, 8, 0, False)
    small = prepare(model, spec.at_ends(*ends(model)))
    # three inputs of eight bits: two convolutions and the linear layer
    assert bits(small) == 8 * (weights + 80) + 32 * (filters + 10 + 4 * filters + 10 + 3)
    assert bits(merge(small)) == 8 * (weights + 80) + 32 * (2 * filters + 2 * 10 + 3)
    last = next(row for row in cost.layers(small, 32) if row.name == "linear")
    assert (last.macs, last.params, last.shape) == (80, 90, (10,))


@pytest.mark.parametrize("arch", [*models.names(), ARCH])
def test_merging_changes_no_multiplication(arch: str) -> None:
    model = form(arch)
    assert cost.total(cost.layers(merge(model), 8), "macs") == cost.total(cost.layers(model, 8), "macs") > 0


class Twice(nn.Module):
    """One convolution that runs twice, one part that stays in eval mode, and one that never runs."""

    def __init__(self) -> None:
        super().__init__()
        self.conv = nn.Conv2d(3, 3, 3, padding=1)
        self.frozen = nn.BatchNorm2d(3).eval()
        self.idle = nn.Conv2d(3, 99, 1)

    def forward(self, x: Tensor) -> Tensor:
        return self.frozen(self.conv(self.conv(x)))


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64, torch.bfloat16])
def test_shared_layers_store_once_and_run_twice(dtype: torch.dtype) -> None:
    model = Twice().to(dtype)
    model.frozen.eval()
    before = {key: value.clone() for key, value in model.state_dict().items()}
    rows = cost.layers(model, 4)
    assert [(row.name, row.params, row.macs) for row in rows] == [
        ("conv", 84, 81 * 16), ("conv", 0, 81 * 16), ("frozen", 6, 0), ("idle", 396, 0),
    ]  # fmt: skip
    assert cost.total(rows, "bits") == 32 * (84 + 12 + 396)
    assert cost.total(rows, "output_bytes") == 4 * 3 * prod((3, 4, 4))
    assert (model.training, model.conv.training, model.frozen.training) == (True, True, False)
    assert all(torch.equal(before[key], value) for key, value in model.state_dict().items())


class Gained(nn.Module):
    """Tensors that no leaf module holds or uses: of the network itself, of a block, of an unused layer."""

    def __init__(self) -> None:
        super().__init__()
        self.gain = nn.Parameter(torch.ones(1000))
        self.register_buffer("offset", torch.zeros(7))
        self.block = nn.Sequential(nn.Conv2d(3, 4, 1))
        self.block.scale = nn.Parameter(torch.ones(4))
        self.spare = nn.Linear(50, 50)

    def forward(self, x: Tensor) -> Tensor:
        return self.block(x).mean((2, 3)) * self.block.scale * self.gain.mean()


@pytest.mark.parametrize("make", [Gained, Twice, *(lambda a=a: models.build(a) for a in (*models.names(), ARCH))])
def test_every_tensor_of_a_float_network_is_counted(make: Callable[[], nn.Module]) -> None:
    model = make()
    rows = cost.layers(model, 8)
    assert cost.total(rows, "params") == sum(p.numel() for p in model.parameters())
    held = sum(t.numel() for name, t in model.state_dict().items() if not name.endswith("num_batches_tracked"))
    assert cost.total(rows, "bits") == 32 * held


def test_what_does_not_run_says_so() -> None:
    rows = cost.layers(Gained(), 8)
    assert [(r.name, r.kind, r.params, r.macs) for r in rows] == [
        ("block.0", "Conv2d", 16, 12 * 64), ("(itself)", "Gained", 1000, 0), ("block", "Sequential", 4, 0),
        ("spare", "not run", 2550, 0),
    ]  # fmt: skip
    assert [r.output_bytes for r in rows] == [4 * 4 * 64, 0, 0, 0]


class Tied(nn.Module):
    """One weight of 4 x 4 numbers shared by two layers, on 8 x 8 pictures."""

    def __init__(self) -> None:
        super().__init__()
        self.first = nn.Conv2d(3, 4, 1, bias=False)
        self.one, self.two = nn.Conv2d(4, 4, 1, bias=False), nn.Conv2d(4, 4, 1)
        self.two.weight = self.one.weight
        self.last = nn.Linear(4, 10)

    def forward(self, x: Tensor) -> Tensor:
        return self.last(self.two(self.one(self.first(x))).mean((2, 3)))


def test_tied_weights_are_counted_once_and_computed_with_twice() -> None:
    model = Tied()
    rows = cost.layers(model, 8)
    params = 12 + 16 + 4 + 50
    assert cost.total(rows, "params") == sum(p.numel() for p in model.parameters()) == params
    assert cost.total(rows, "bits") == 32 * params
    assert cost.total(rows, "macs") == 64 * (12 + 16 + 16) + 40
    for spared, width in (((), 4), (("one",), 32), (("two",), 32)):  # if both are needed, the wider one is kept
        spec = QuantSpec(quantizer(4), quantizer(4), exceptions=("first", "last", *spared))
        assert bits(prepare(captured(model), spec)) == 32 * (params - 16) + width * 16
