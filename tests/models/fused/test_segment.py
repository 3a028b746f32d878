"""A segment gives the same results as its modules in sequence: codes, all gradients, statistics, ranges."""

from __future__ import annotations

import copy
from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from engine.numerics import precision
from models.fused.grid import Act
from models.fused.segment import Segment
from models.layers.conv_q import QuantConv2d
from models.layers.quantizers import affine, dorefa, lsq
from models.layers.quantizers.base import Quantizer
from models.layers.quantizers.identity import Identity
from tests.tools.segments import ACTS, MADE, parts


def trained(run: Callable[[Tensor], Any], x: Tensor, modules: list[nn.Module]) -> tuple[Tensor, list[Tensor]]:
    """Take a step; return the codes, and the gradients of parameters and input and all state."""
    x = x.clone().requires_grad_()
    codes, scale = run(x)
    value = codes.float() if scale is None else codes.float() * scale
    (value * torch.linspace(-1, 1, value.numel()).reshape(value.shape)).sum().backward()
    gradients = [p.grad if p.grad is not None else torch.zeros_like(p) for m in modules for p in m.parameters()]
    return codes.detach(), [x.grad, *gradients, *(b.float() for m in modules for b in m.buffers())]


@pytest.mark.parametrize(
    ("kind", "fold", "bias"),
    [*((kind, False, False) for kind in MADE), ("DoReFa", False, True), ("INT8", True, False), ("INT8", True, True)],
)
def test_it_is_what_its_modules_are(kind: str, fold: bool, bias: bool) -> None:
    act, (layer, norm, behind, x) = MADE[kind][2], parts(kind, fold, bias)
    codes, found = trained(lambda x: behind(ACTS[act](norm(layer(x)))), x, [layer, norm, behind])
    layer, norm, behind, x = parts(kind, fold, bias)
    segment = Segment(layer, None if fold else norm, act, behind)
    fused, same = trained(segment, x, [layer, norm, behind])
    assert (fused != codes).float().mean() < 1e-3  # numbers on an edge may differ
    names = ["input", *(n for m in (layer, norm, behind) for n, _ in m.named_parameters())]
    for number, (one, other) in enumerate(zip(found, same, strict=True)):
        name = names[number] if number < len(names) else "state"
        apart, size = (one - other).norm(), one.norm()
        assert apart <= 1e-3 * size + 1e-3, f"{name}: {apart} of {size}"
    assert found[1].norm() > 0


@pytest.mark.parametrize("pool", [nn.MaxPool2d(2), nn.MaxPool2d(3, 2, 1)], ids=["2x2", "3x3"])
@pytest.mark.parametrize("kind", [*MADE, "number"])
def test_a_pool_may_stand_before_the_codes(kind: str, pool: nn.MaxPool2d) -> None:
    """Codes, ranges and learned steps are those of the numbers that the pool selects, before or behind the activation."""
    name = MADE[kind][2] if kind in MADE else "relu"
    act, found = ACTS[name], []
    for how in ("segment", "pool first", "activation first"):
        layer, norm, behind, x = parts(kind if kind in MADE else "DoReFa", False, False)
        coded = behind if kind in MADE else lambda y: (y, None)
        run = {
            "segment": Segment(layer, norm, name, behind if kind in MADE else None, pool),
            "pool first": lambda x, layer=layer, norm=norm, coded=coded: coded(act(pool(norm(layer(x))))),
            "activation first": lambda x, layer=layer, norm=norm, coded=coded: coded(pool(act(norm(layer(x))))),
        }[how]
        run = run if kind in MADE or how != "segment" else lambda x, run=run: (run(x), None)
        found.append(trained(run, x, [layer, norm, behind]))
    (codes, one), *others = found
    assert codes.shape == pool(torch.zeros(6, 21, 9, 9)).shape
    assert one[1].norm() > 0
    for same, other in others:
        assert (codes - same).abs().gt(1e-4).float().mean() < 1e-3  # numbers on an edge may differ
        for a, b in zip(one, other, strict=True):
            assert (a - b).norm() <= 1e-3 * a.norm() + 1e-3


def test_a_number_that_an_activation_holds_at_its_end_moves_the_step() -> None:
    """Codes of 6 depend on the step, although numbers clamped to 6 have no gradient."""
    found = []
    for run in (lambda behind, x: behind(F.relu6(x)), lambda behind, x: Segment(None, None, "relu6", behind)(x)):
        behind = lsq.LsqActivation(4, False)
        with torch.no_grad():
            behind.step.fill_(0.8)
            behind.seen.fill_(1)
        behind.ready()
        x = torch.full((1, 1, 2, 2), 10.0, requires_grad=True)
        codes, scale = run(behind, x)
        (codes * scale).sum().backward()
        found.append((behind.step.grad.item(), x.grad.sum().item()))
    assert found[0] == pytest.approx(found[1])
    assert found[0][0] != 0


def made(kind: str, bits: int, signed: bool) -> Quantizer:
    """Return a quantizer whose codes stand one apart; its lowest code is even or odd."""
    if kind == "dorefa":
        return dorefa.DorefaActivation(bits)
    if kind == "lsq":
        learned = lsq.LsqActivation(bits, signed)
        learned.seen.fill_(1)
        return learned
    affine_ = affine.AffineActivation(bits, signed)
    affine_.frozen, most = True, 2.0 ** (bits - 1) - 1
    affine_.set_range(torch.tensor(-most if signed else -2.0), torch.tensor(most if signed else 2.0**bits - 3))
    return affine_


@pytest.mark.parametrize("act", ACTS)
@pytest.mark.parametrize("bits", [2, 3, 4, 8])
@pytest.mark.parametrize(
    ("kind", "signed"), [("affine", True), ("affine", False), ("lsq", True), ("lsq", False), ("dorefa", False)]
)
def test_ties_and_ends_are_those_of_the_modules(kind: str, signed: bool, bits: int, act: Act) -> None:
    """Halfway between two codes, at the ends and half a step beyond them, codes and gradients are the very same."""
    halves, levels = torch.arange(-600, 601) / 2, 2**bits - 1
    shares = torch.arange(2 * levels + 1) * (10 / (2 * levels))  # DoReFa divides 0 to 10 into steps
    x, found = torch.cat([halves, shares, torch.tensor([-0.0, 1 / 3])]), []
    for run in (lambda behind, x: behind(ACTS[act](x)), lambda behind, x: Segment(None, None, act, behind)(x)):
        behind, leaf = made(kind, bits, signed), x.clone().reshape(1, 1, -1, 1).requires_grad_()
        codes, scale = run(behind, leaf)
        (codes * scale.detach()).sum().backward()
        found.append((codes.detach().flatten(), leaf.grad.flatten()))
    (codes, slopes), (same, gradients) = found
    assert torch.equal(codes, same)
    torch.testing.assert_close(slopes, gradients, rtol=1e-5, atol=1e-6)
    assert slopes.any()


def test_a_tie_of_eight_bits_goes_to_the_even_code() -> None:
    """0.1 times 5 is half of 255 steps, 127.5."""
    x = torch.full((1, 1, 1, 1), 5.0, requires_grad=True)
    assert Segment(None, None, "relu", dorefa.DorefaActivation(8))(x).codes.item() == 128


@pytest.mark.parametrize("change", ["no affine", "momentum None", "frozen", "groups"])
def test_it_is_what_its_modules_are_in_rarer_settings(change: str) -> None:
    found = []
    for how in ("modules", "segment"):
        layer, norm, behind, x = parts("INT8", False, True)
        if change == "no affine":
            norm = nn.BatchNorm2d(21, affine=False)
        norm.momentum = None if change == "momentum None" else norm.momentum
        if change == "frozen":
            behind.set_range(torch.tensor(-0.5), torch.tensor(3.0))
            behind.frozen = True
        if change == "groups":
            torch.manual_seed(3)
            conv = nn.Conv2d(8, 20, 3, groups=4)
            layer = QuantConv2d.from_float(conv, layer.weight_quantizer, layer.input_quantizer)
            norm = nn.BatchNorm2d(20)
        segment = Segment(layer, norm, "relu", behind)
        run = segment if how == "segment" else segment.apart
        found.append(trained(run, x, [layer, norm, behind]))
    (codes, one), (same, other) = found
    assert (codes != same).float().mean() < 1e-3
    for a, b in zip(one, other, strict=True):
        assert (a - b).norm() <= 1e-3 * a.norm() + 1e-3


def test_where_nothing_is_trained_state_stays() -> None:
    """A quantizer keeps its range in eval mode; float64, which the loops do not support, gives the modules' codes."""
    behind = affine.AffineActivation(8, False)
    behind.set_range(torch.tensor(0.0), torch.tensor(1.0))
    behind.eval()
    Segment(None, None, "relu", behind)(torch.full((2, 3, 4, 4), 50.0))
    assert behind.high == 1
    exact = torch.randn(2, 3, 4, 4, dtype=torch.float64)
    wanted = dorefa.DorefaActivation(8)(exact.relu()).codes
    assert torch.equal(Segment(None, None, "relu", dorefa.DorefaActivation(8))(exact).codes, wanted)


def test_one_number_a_channel_is_refused_as_torch_does() -> None:
    with pytest.raises(ValueError, match="one number a channel"):
        Segment(None, nn.BatchNorm2d(3), "relu", dorefa.DorefaActivation(8))(torch.randn(1, 3, 1, 1))


@pytest.mark.parametrize("bias", [False, True])
def test_one_number_a_channel_is_what_a_folded_norm_makes_of_it(bias: bool) -> None:
    """The variance is 0, and the layer gives beta; running statistics and gradients are those of the modules, too."""
    found = []
    for how in ("modules", "segment"):
        layer, norm, _, x = parts("INT8", True, bias)
        behind = affine.AffineActivation(8, False)
        layer.padding = 0
        segment = Segment(layer, None, "relu", behind)
        run = segment if how == "segment" else segment.apart
        found.append(trained(run, x[:1, :, :3, :3], [layer, norm, behind]))
    (codes, one), (same, other) = found
    assert codes.shape == (1, 21, 1, 1)
    assert torch.equal(codes, same)
    assert codes.any()
    for a, b in zip(one, other, strict=True):
        torch.testing.assert_close(a, b, rtol=1e-4, atol=1e-4)


def test_float_weights_are_not_rounded_behind_codes_in_bf16() -> None:
    conv = nn.Conv2d(4, 5, 3)
    layer = QuantConv2d.from_float(conv, Identity(), dorefa.DorefaActivation(8))
    codes = layer.input_codes(torch.rand(2, 4, 6, 6))
    wanted = layer(codes)
    with precision.computing("bf16"):
        assert torch.equal(layer(codes._replace(codes=codes.codes.bfloat16())), wanted)


def test_in_bf16_sums_alone_are_rounded() -> None:
    """An activation changes by one code at most: sums have bf16's 8 bits, everything else is fp32."""
    layer, norm, behind, x = parts("DoReFa", False, False)
    first = copy.deepcopy((layer, norm, behind))
    exact = first[2](F.relu(first[1](first[0](x)))).codes
    with precision.computing("bf16"):
        codes = dorefa.DorefaActivation(8)(x)
        found = Segment(layer, norm, "relu", behind)(codes._replace(codes=codes.codes.bfloat16()))
    assert found.codes.dtype == torch.bfloat16
    assert (found.codes.float() - exact).abs().max() <= 1
    assert (found.codes.float() != exact).float().mean() < 0.2


def test_a_frozen_norm_is_left_to_itself() -> None:
    layer, norm, behind, x = parts("DoReFa", False, False)
    norm.running_mean.fill_(0.5)
    norm.eval()
    wanted = behind(F.relu(norm(layer(x)))).codes
    assert torch.equal(Segment(layer, norm, "relu", behind)(x).codes, wanted)
    assert norm.num_batches_tracked == 0


def test_the_first_batch_sets_a_learned_step() -> None:
    behind = lsq.LsqActivation(4, False)
    Segment(None, nn.BatchNorm2d(4), "relu", behind)(torch.randn(5, 4, 6, 6))
    assert behind.seen
    assert behind.step != 1
