"""A merged network equals the unmerged one: the same answer for every picture at any bits, and integer codes."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from functools import cache
from itertools import product
from pathlib import Path

import pytest
import torch
from torch import Tensor, nn

import models
from bn_merge.merge import merge
from engine.checkpoint import format as checkpoint
from engine.checkpoint.format import Metrics
from engine.checkpoint.history import Merge, Quantize
from engine.checkpoint.provenance import Origin
from engine.data.info import DataInfo
from models.blocks import ConvBNAct
from models.graph.chains import chains, unfolded
from models.graph.normal import NormalForm
from models.layers.conv_q import QuantConv2d, QuantLinear
from models.layers.fold import MergedConv2d, MergedLinear
from quant.prepare import prepare
from quant.quantizer_spec import quantizer
from quant.restore import open as restored
from quant.spec import QuantSpec, affine_spec
from tests.tools.networks import captured, ends, form
from tests.tools.residual import ARCH, residual

CFGS = {"nin": [12] * 8, "nin_gc": [8, 8, 16, 16, 8, 32, 32, 16]}
BITS = (32, 8, 4, 2, "t", "b")
INFO = DataInfo("digits", "digits", 10, 8, (0.5,) * 3, (0.25,) * 3)
NORMS = nn.modules.batchnorm._BatchNorm


def pictures(count: int = 16, seed: int = 1) -> Tensor:
    return torch.randn(count, 3, 8, 8, generator=torch.Generator().manual_seed(seed))


def network(arch: str) -> NormalForm:
    torch.manual_seed(0)
    return spread(form(arch, CFGS.get(arch)))


def spread(model: NormalForm) -> NormalForm:
    """Give a network gammas of both signs, some of them 0, large enough for activations of 2 bits."""
    with torch.no_grad():
        for norm in (m for m in model.modules() if isinstance(m, NORMS)):
            norm.weight.uniform_(2, 8).mul_(torch.randn(len(norm.weight)).sign())
            norm.weight[3::8] = 0
            norm.bias.normal_()
    return model


def prepared(arch: str, spec: QuantSpec) -> NormalForm:
    """Return a network in eval mode after training passes: without each BN's own statistics no signal would get through."""
    model = network(arch)
    model = prepare(model, spec.at_ends(*ends(model)))
    for norm in (m for m in model.modules() if isinstance(m, NORMS)):
        norm.momentum = 0.9
    for seed in (2, 3):
        model.train()(pictures(seed=seed))
    return model.eval()


def assert_merged(model: NormalForm, merged: NormalForm) -> None:
    """Check that only batch norms without a layer are left, and that layers hold integers of their bits if they were quantized, else floats."""
    layers = {n: m for n, m in model.named_modules() if isinstance(m, (nn.Conv2d, nn.Linear))}
    folded = {chain.layer for chain in chains(model)}
    assert [n for n, m in merged.named_modules() if isinstance(m, NORMS)] == unfolded(model)
    for name, layer in layers.items():
        held = merged.get_submodule(name)
        if type(layer) in (nn.Conv2d, nn.Linear) and name not in folded:
            assert type(held) is type(layer)
            assert held.weight.equal(layer.weight)  # float, without a BN after it: unchanged
            continue
        assert isinstance(held, (MergedConv2d, MergedLinear)), name
        assert list(dict(held.named_buffers(recurse=False))) == ["codes", *["scale"] * (held.scale is not None), "bias"]
        assert held.weight_bits == getattr(layer, "weight_bits", 32)
        if held.weight_bits == 32:
            assert held.codes.is_floating_point()
            assert held.scale is None
        else:
            assert held.codes.dtype in (torch.int8, torch.int16), name
            codes = layer.weight_codes()[0]
            assert torch.equal(held.codes.abs().double(), codes.detach().abs().double()), name


def check(model: NormalForm) -> NormalForm:
    """Merge in float64 and compare; returns the merged network."""
    model = model.double()
    state = {k: v.clone() for k, v in model.state_dict().items()}
    merged, x = merge(model), pictures(64).double()
    expected, found = model(x).detach(), merged(x)
    assert torch.equal(found.argmax(1), expected.argmax(1))
    assert (found - expected).abs().max() <= 1e-9
    assert expected.std(0).max() > 0.01  # otherwise the comparison shows nothing
    assert_merged(model, merged)
    assert all(torch.equal(state[k], v) for k, v in model.state_dict().items())  # merged is a copy
    return merged


PAIRED = [
    ("nin", "cbap", BITS),
    ("nin", "bacp", ("t", "b")),
    ("nin_gc", "cbap", (4,)),
    ("nin_gc", "bacp", ("b",)),
    *(
        pytest.param(arch, order, BITS, marks=pytest.mark.slow)
        for arch, order in product(CFGS, ("cbap", "bacp"))
        if (arch, order) != ("nin", "cbap")
    ),
]


@pytest.mark.parametrize(("arch", "order", "activations"), PAIRED)
@pytest.mark.parametrize("weight", BITS)
def test_every_pair_of_bits(weight: int | str, activations: tuple[int | str, ...], order: str, arch: str) -> None:
    """The pairs include 32 with 32, the float network."""
    for activation, scale in product(activations, (True, False) if weight in ("t", "b") else (True,)):
        check(prepared(arch, QuantSpec(quantizer(weight, scale=scale), quantizer(activation), order=order)))


@pytest.mark.parametrize("arch", CFGS)
@pytest.mark.parametrize(("q_type", "bn_fold"), list(product((0, 1), (False, True))))
def test_int8(q_type: int, bn_fold: bool, arch: str) -> None:
    for bits, per_channel in (((8, 8), True), ((8, 8), False), ((4, 32), True), ((2, 3), True)):
        check(prepared(arch, affine_spec(*bits, q_type, bn_fold, per_channel)))


@pytest.mark.parametrize(
    "spec", [QuantSpec(), affine_spec(8, 8, 1, False), QuantSpec(quantizer("t"), quantizer(4))], ids=lambda s: s.name
)
def test_residual_networks_with_linear_layers(spec: QuantSpec) -> None:
    check(prepared(ARCH, spec))


def test_binary_codes_before_a_residual_sum_keep_their_scale() -> None:
    """A BN may be reduced to its sign only if all its readers are binary."""
    model = captured(residual())
    spec = replace(
        QuantSpec(quantizer("b"), quantizer("b")), exceptions=("last.conv", "block1.first.conv", "block2.first.conv")
    )
    model = prepare(model, spec.at_ends(*ends(model)))
    model.train()(pictures())
    merged = check(model.eval())
    assert merged.block1.first.conv.scale is None
    assert merged.block1.second.conv.scale is not None


@pytest.mark.parametrize("bits", [(8, 8), (4, 32), (2, 2)])
def test_folded_in_training_merges_to_itself_exactly(bits: tuple[int, int]) -> None:
    for q_type, arch in product((0, 1), CFGS):
        model = prepared(arch, affine_spec(*bits, q_type, True))
        assert torch.equal(merge(model)(pictures()), model(pictures()))


SPECS = [
    QuantSpec(), QuantSpec(quantizer("b"), quantizer("b"), order="bacp"), QuantSpec(quantizer("t", gap=True), quantizer("b")),
    QuantSpec(quantizer("b"), quantizer("t")), QuantSpec(quantizer(8), quantizer(8)), QuantSpec(quantizer(4), quantizer(8), order="bacp"),
    affine_spec(8, 8, 0, True), affine_spec(8, 8, 1, False),
]  # fmt: skip


@pytest.mark.parametrize("arch", [*CFGS, ARCH])
@pytest.mark.parametrize("spec", SPECS, ids=lambda spec: f"{spec.name}-{spec.order}")
def test_a_merged_file_is_that_network_bit_for_bit(spec: QuantSpec, arch: str, tmp_path: Path) -> None:
    merged = merge(prepared(arch, spec))
    spec = replace(spec.at_ends(*ends(merged)), by_graph=True)
    stages = (Quantize(spec=spec.to_dict()), Merge())
    content = checkpoint.make(merged, arch, {"classes": 10}, INFO, Metrics(1.0), stages, Origin(("x",), 1))
    checkpoint.save(tmp_path / "a.pth", content)
    again = restored(tmp_path / "a.pth", arch).network.eval()
    assert torch.equal(again(pictures(64)), merged(pictures(64)))
    assert [type(m) for m in again.modules()] == [type(m) for m in merged.modules()]
    for (key, one), (name, other) in zip(again.state_dict().items(), merged.state_dict().items(), strict=True):
        assert (key, one.dtype, one.tolist()) == (name, other.dtype, other.tolist())


def test_binary_weights_before_binary_activations_need_no_scale_at_all() -> None:
    merged = merge(prepared("nin", QuantSpec(quantizer("b"), quantizer("b"))))
    for number in range(2, 8):  # block 8 is read by the float last layer
        layer = merged.get_submodule(f"block{number}.conv")
        assert layer.scale is None
        assert set(layer.codes.unique().tolist()) == {-1, 1}
    assert merged.block8.conv.scale is not None


@cache
def odd(change: Callable[[ConvBNAct], None]) -> NormalForm:
    """Return a nin with another block 4 and statistics of pictures; tests must not change it."""
    torch.manual_seed(0)
    plain = models.build("nin", CFGS["nin"])
    change(plain.block4)
    model = spread(captured(plain))
    for seed in (2, 3):
        model.train()(pictures(seed=seed))
    return model.eval()


def no_convolution(block: ConvBNAct) -> None:
    block.conv = nn.Identity()


def two_norms(block: ConvBNAct) -> None:
    block.act = nn.BatchNorm2d(12)


def averaged(block: ConvBNAct) -> None:
    block.bn, block.pool = nn.AvgPool2d(2), nn.BatchNorm2d(12)


@pytest.mark.parametrize(
    ("change", "left"), [(no_convolution, "block4.bn"), (two_norms, "block4.act"), (averaged, "block4.pool")]
)
@pytest.mark.parametrize("spec", [QuantSpec(), affine_spec(8, 8, 1, True)], ids=["float", "folded in training"])
def test_what_cannot_be_folded_stays(change: Callable[[ConvBNAct], None], left: str, spec: QuantSpec) -> None:
    """A batch norm after a sum, a batch norm or an average stays; the network computes the same, and other norms are folded."""
    model = odd(change)
    model = prepare(model, spec.at_ends(*ends(model)))
    model.train()(pictures())
    merged = check(model.eval())
    assert [n for n, m in merged.named_modules() if isinstance(m, NORMS)] == [left]


def test_an_average_pool_behind_the_batch_norm_is_no_obstacle() -> None:
    plain = models.build("nin", CFGS["nin"])
    plain.block3.pool = plain.block6.pool = nn.AvgPool2d(2)
    check(spread(captured(plain)).eval())


def test_merging_what_has_no_batch_norm_holds_its_codes() -> None:
    plain = models.build("nin", CFGS["nin"])
    for block in list(plain)[:9]:
        block.bn = nn.Identity()
    model = captured(plain)
    model = prepare(model, QuantSpec(quantizer("t"), quantizer(8), exceptions=sum(ends(model), ()))).eval().double()
    merged = merge(model)
    assert not any(isinstance(m, (QuantConv2d, QuantLinear)) for m in merged.modules())
    assert (merged(pictures().double()) - model(pictures().double())).abs().max() <= 1e-12
