"""Folding a batch norm in training equals that batch norm exactly, and the trained network equals the deployed one."""

from __future__ import annotations

import copy
import textwrap
from itertools import product
from pathlib import Path

import pytest
import torch
from torch import Tensor, nn

from models import BNFold_Conv2d_Q, Conv2d_Q
from models.layers.bnfold import BNFoldConv2d, FoldedNorm
from models.layers.quantizers.affine import AffineActivation, AffineWeight, affine_weight
from models.layers.quantizers.base import Quantizer
from models.layers.quantizers.identity import Identity
from quant.prepare import prepare
from quant.spec import affine_spec
from tests.tools.networks import ends, form

ORIGINAL = Path(__file__).parents[4] / "shared/seeds/original-readme.txt"


def pair(bias: bool = True, groups: int = 1, momentum: float | None = 0.1, eps: float = 1e-5) -> nn.Sequential:
    """Return conv, bn in float64; gammas of both signs, and one of 0."""
    conv = nn.Conv2d(4, 6, 3, stride=(1, 2), padding=1, groups=groups, bias=bias, padding_mode="reflect")
    bn = nn.BatchNorm2d(6, eps=eps, momentum=momentum)
    with torch.no_grad():
        bn.weight.normal_()
        bn.weight[0] = 0
        bn.weight[1:3] = torch.tensor([-1.25, 0.75])
        bn.bias.normal_()
        bn.running_mean.normal_()
        bn.running_var.uniform_(0.1, 3)
    return nn.Sequential(conv, bn).double()


def folding(plain: nn.Sequential, weight: Quantizer, activation: Quantizer) -> nn.Sequential:
    """Return a copy of `plain` whose convolution includes the batch norm."""
    conv, bn = copy.deepcopy(plain)
    norm = FoldedNorm.from_norm(bn)
    return nn.Sequential(BNFoldConv2d.from_float(conv, weight, activation).attach(norm), norm).double()


def pictures(seed: int = 0) -> Tensor:
    return torch.randn(5, 4, 6, 6, dtype=torch.float64, generator=torch.Generator().manual_seed(seed))


def assert_close(found: Tensor, expected: Tensor, largest: float | None = None) -> None:
    assert found.shape == expected.shape
    assert (found - expected).abs().max() <= 1e-12 * (largest or expected.abs().max())


@pytest.mark.parametrize(
    ("bias", "groups", "momentum", "eps"), [(True, 1, 0.1, 1e-5), (False, 2, 0.01, 1e-3), (True, 2, None, 1e-5)]
)
def test_without_quantizers_it_is_the_batch_norm(bias: bool, groups: int, momentum: float | None, eps: float) -> None:
    """Values, every gradient, and running statistics are equal over three training batches and in evaluation."""
    torch.manual_seed(0)
    plain = pair(bias, groups, momentum, eps)
    folded = folding(plain, Identity(), Identity())
    assert list(folded.state_dict()) == list(plain.state_dict())
    for seed in range(3):
        x, twin = pictures(seed).requires_grad_(), pictures(seed).requires_grad_()
        found, expected = folded(x), plain(twin)
        assert_close(found, expected)
        up = torch.randn_like(expected)
        for output, model in ((found, folded), (expected, plain)):
            model.zero_grad()
            output.backward(up)
        assert_close(x.grad, twin.grad)
        for (name, one), other in zip(folded.named_parameters(), plain.parameters(), strict=True):
            # a bias before a BN has gradient 0 up to rounding
            assert_close(one.grad, other.grad, up.abs().sum() if name == "0.bias" else None)
        for one, other in zip(folded.buffers(), plain.buffers(), strict=True):
            assert_close(one, other)
    assert_close(folded.eval()(x), plain.eval()(x))


def test_a_frozen_norm_keeps_its_statistics_in_training() -> None:
    """Values, every gradient and all state equal those of the batch norm in eval mode behind a layer that trains."""
    torch.manual_seed(0)
    plain = pair()
    folded = folding(plain, Identity(), Identity())
    before = copy.deepcopy(folded.state_dict())
    for model in (plain, folded):
        model.train()[1].eval()
    x, twin = pictures().requires_grad_(), pictures().requires_grad_()
    found, expected = folded(x), plain(twin)
    assert_close(found, expected)
    up = torch.randn_like(expected)
    found.backward(up)
    expected.backward(up)
    assert_close(x.grad, twin.grad)
    for one, other in zip(folded.parameters(), plain.parameters(), strict=True):
        assert_close(one.grad, other.grad)
    assert all(torch.equal(before[key], value) for key, value in folded.state_dict().items())
    folded[1].train()(folded[0](pictures()))
    assert not torch.equal(before["1.running_mean"], folded[1].running_mean)


@pytest.mark.parametrize(
    ("symmetric", "per_channel", "bias"), list(product([True, False], [True, False], [True, False]))
)
def test_evaluation_quantizes_the_folded_weight(symmetric: bool, per_channel: bool, bias: bool) -> None:
    torch.manual_seed(0)
    plain = pair(bias)
    folded = folding(plain, AffineWeight(4, symmetric, per_channel), AffineActivation(8, symmetric))
    for seed in range(3):
        folded(pictures(seed))
    folded.eval()
    before = copy.deepcopy(folded.state_dict())
    found = folded(pictures(9))

    conv, bn = plain
    conv.load_state_dict({k: v for k, v in folded[0].state_dict().items() if k in conv.state_dict()})
    bn.load_state_dict(folded[1].state_dict())
    factor = bn.weight / (bn.running_var + bn.eps).sqrt()
    codes, scale = affine_weight(conv.weight * factor.reshape(-1, 1, 1, 1), 4, symmetric, per_channel)
    shift = bn.bias + ((conv.bias if bias else 0) - bn.running_mean) * factor
    x = folded[0].input_quantizer(pictures(9))
    conv.weight.data, conv.bias = codes * scale, None
    assert_close(found, conv(x.codes * x.scale) + shift.reshape(-1, 1, 1))

    w_codes, w_scale = folded[0].weight_codes()
    assert torch.equal(w_codes, codes)
    assert_close(w_scale, scale)
    assert_close(folded[0].folded_bias(), shift)
    assert all(torch.equal(before[k], v) for k, v in folded.state_dict().items())  # no state changed


def test_training_quantizes_the_weight_folded_with_the_batch() -> None:
    """With the data as one batch, training computes the same as evaluation with that batch's statistics."""
    torch.manual_seed(0)
    plain = pair(momentum=1.0)
    folded = folding(plain, AffineWeight(4, True, True), AffineActivation(3, False))
    x = pictures()
    trained = folded(x)
    codes, scale = folded[0].input_quantizer(x)
    before = plain[0](codes * scale)  # the BN's input: unquantized weight, quantized input
    assert_close(folded[1].running_mean, before.mean((0, 2, 3)))
    assert_close(folded[1].running_var, before.var((0, 2, 3)))
    folded[1].running_var.copy_(before.var((0, 2, 3), correction=0).detach())  # training uses the biased variance
    assert_close(folded.eval()(x), trained)


def test_a_batch_norm_without_gamma_and_beta_folds_too() -> None:
    torch.manual_seed(0)
    plain = nn.Sequential(nn.Conv2d(4, 6, 3), nn.BatchNorm2d(6, affine=False)).double()
    folded = folding(plain, Identity(), Identity())
    assert_close(folded(pictures()), plain(pictures()))
    assert_close(folded.eval()(pictures()), plain.eval()(pictures()))


@pytest.mark.parametrize("arch", ["nin", "nin_gc"])
def test_copies_of_a_prepared_network_keep_conv_and_norm_tied(arch: str) -> None:
    torch.manual_seed(0)
    model = form(arch, {"nin": [8] * 8, "nin_gc": [2, 2, 16, 16, 4, 32, 32, 8]}[arch])
    first = prepare(model, affine_spec(8, 8, 1, True).at_ends(*ends(model))).train()
    x = torch.randn(4, 3, 8, 8)
    first(x)
    held = copy.deepcopy(first.state_dict())
    second = copy.deepcopy(first)
    second(torch.randn(4, 3, 8, 8) + 1)
    with torch.no_grad():
        second.block2.bn.bias += 3
    assert all(torch.equal(held[k], v) for k, v in first.state_dict().items())  # the copy has its own norms,
    for number in range(1, 10):
        block = second.get_submodule(f"block{number}")
        assert isinstance(block.conv, BNFoldConv2d)
        assert not torch.equal(block.bn.running_mean, held[f"block{number}.bn.running_mean"])  # and updates them
    fresh = prepare(model, affine_spec(8, 8, 1, True).at_ends(*ends(model)))
    fresh.load_state_dict(second.state_dict())
    assert torch.equal(fresh.eval()(x), second.eval()(x))
    assert not torch.equal(second(x), first.eval()(x))


def test_the_originals_names_and_arguments() -> None:
    more = dict(stride=2, padding=1, dilation=1, groups=2, bias=True, a_bits=4, w_bits=3, q_type=0, first_layer=0)  # noqa: C408
    x = torch.randn(2, 4, 6, 6)
    plain = Conv2d_Q(4, 6, kernel_size=3, **more)
    folded = BNFold_Conv2d_Q(4, 6, kernel_size=3, eps=1e-3, momentum=0.5, **more)
    assert plain(x).shape == folded(x).shape == (2, 6, 3, 3)
    for layer in (plain, folded):
        assert layer.weight_codes()[0].abs().max() == 3
        assert layer.input_quantizer(x).codes.abs().max() == 7
    assert (folded.bn.eps, folded.bn.momentum, folded.bn.num_batches_tracked) == (1e-3, 0.5, 1)
    for kind in (Conv2d_Q, BNFold_Conv2d_Q):
        first = kind(3, 2, 1, first_layer=1, bias=False)
        assert first.input_quantizer(x).codes is x  # the picture is not quantized
        assert first.bias is None
        with pytest.raises(ValueError, match="q_type 2"):
            kind(3, 2, 1, q_type=2)


@pytest.mark.parametrize("kind", [Conv2d_Q, BNFold_Conv2d_Q])
def test_bits_that_there_are_not(kind: type) -> None:
    for flag in ("a_bits", "w_bits"):
        for bits in (1, 0, -3, 9, 16, 33, 64, 8.0, True, "8"):
            with pytest.raises(ValueError, match=f"{flag} {bits!r} is neither"):
                kind(3, 2, 1, **{flag: bits})
        for bits in (*range(2, 9), 32):
            assert torch.isfinite(kind(3, 2, 1, **{flag: bits})(torch.randn(2, 3, 4, 4))).all()
    for first_layer in (2, -1):
        with pytest.raises(ValueError, match=f"first_layer {first_layer}"):
            kind(3, 2, 1, first_layer=first_layer)


def test_float_weights_can_be_judged_before_any_training() -> None:
    torch.manual_seed(0)
    float_, quantized = nn.Conv2d(3, 4, 3), Conv2d_Q(3, 4, 3).eval()
    quantized.load_state_dict(float_.state_dict(), strict=False)
    x = torch.randn(2, 3, 8, 8)
    expected = float_(x)
    assert (quantized(x) - expected).norm() < 0.02 * expected.norm()  # the weights are rounded, the input is not


@pytest.mark.skipif(not ORIGINAL.exists(), reason="the original's page is not here")
@pytest.mark.parametrize(("q_type", "bn_fold"), list(product((0, 1), (0, 1))))
def test_the_network_printed_by_the_original_trains(q_type: int, bn_fold: int) -> None:
    """The original's code is used as printed, except for the import line."""
    text = ORIGINAL.read_text()
    source = text[text.index("import torch\n") : text.index("def adjust_learning_rate")]
    source = source[: source.rindex("return x\n") + len("return x\n")]
    line = "from .util_wqaq import Conv2d_Q, BNFold_Conv2d_Q\n"
    assert source.count(line) == 1
    space: dict = {"__name__": "original"}
    exec(textwrap.dedent(source.replace(line, "from models import BNFold_Conv2d_Q, Conv2d_Q\n")), space)
    torch.manual_seed(0)
    model = space["Net"]([8] * 8, bn_fold=bn_fold, q_type=q_type)
    optimizer = torch.optim.SGD(model.parameters(), lr=0.01)
    x, y = torch.randn(4, 3, 32, 32), torch.arange(4)
    losses = []
    for _ in range(3):
        loss = nn.functional.cross_entropy(model(x), y)
        optimizer.zero_grad()
        loss.backward()
        assert all(torch.isfinite(p.grad).all() for p in model.parameters())
        optimizer.step()
        losses.append(loss.item())
    assert torch.isfinite(torch.tensor(losses)).all()
    assert len(set(losses)) == 3  # every step changed it
    assert model.eval()(x).shape == (4, 10)
