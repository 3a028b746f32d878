"""A quantized layer equals the plain layer of the dequantized tensors (codes * scale), in values and gradients."""

from __future__ import annotations

import copy
from itertools import product

import pytest
import torch
from torch import Tensor, nn

from models.layers.conv_q import QuantConv2d, QuantLinear
from models.layers.quantizers.base import Quantizer
from models.layers.quantizers.binary import BinaryActivation, BinaryWeight
from models.layers.quantizers.dorefa import DorefaActivation, DorefaWeight
from models.layers.quantizers.identity import Identity
from models.layers.quantizers.ternary import TernaryActivation, TernaryWeight

GEOMETRIES = {
    "plain": {},
    "groups": {"groups": 2},
    "depthwise": {"groups": 4, "out_channels": 8},
    "strided": {"stride": (2, 1), "padding": (2, 1)},
    "dilated": {"dilation": 2, "padding": 2},
    "one_by_one": {"kernel_size": 1, "padding": 0},
    "oblong": {"kernel_size": (3, 2), "padding": (1, 0)},
    "valid": {"padding": "valid"},
    "same": {"padding": "same"},
    "same_even": {"padding": "same", "kernel_size": 4},  # one more after than before
}
PADDINGS = ["zeros", "reflect", "circular", "replicate"]
PAIRS = {
    "dorefa": (lambda: DorefaWeight(3), lambda: DorefaActivation(3)),
    "binary": (BinaryWeight, BinaryActivation),
    "ternary": (TernaryWeight, TernaryActivation),
    "no_scale": (lambda: TernaryWeight(scale=False), BinaryActivation),
    "weight_only": (lambda: DorefaWeight(8), Identity),
    "input_only": (Identity, lambda: DorefaActivation(2)),
    "identity": (Identity, Identity),
}


def dequantized(quantizer: Quantizer, x: Tensor) -> Tensor:
    codes, scale = quantizer(x)
    return codes if scale is None else codes * scale


def assert_close(found: Tensor | None, expected: Tensor | None) -> None:
    if expected is None:
        assert found is None
    else:
        assert found.shape == expected.shape
        assert (found - expected).abs().max() <= 1e-12 * expected.abs().max()


def assert_same(layer: nn.Module, x: Tensor, plain: nn.Module) -> None:
    """Compare `layer` of `x` and all gradients with `plain`, a float layer on the dequantized tensors."""
    leaf, twin = x.clone().requires_grad_(), x.clone().requires_grad_()
    output = layer(leaf)
    weight = dequantized(layer.weight_quantizer, plain.weight)
    expected = torch.func.functional_call(plain, {"weight": weight}, dequantized(layer.input_quantizer, twin))
    assert_close(output, expected)
    up = torch.randn_like(output)
    output.backward(up)
    expected.backward(up)
    assert_close(leaf.grad, twin.grad)
    assert_close(layer.weight.grad, plain.weight.grad)
    if layer.bias is not None:
        assert_close(layer.bias.grad, plain.bias.grad)


def twins(plain: nn.Module, pair: str) -> tuple[nn.Module, nn.Module]:
    """Return a quantized layer, and an independent float layer with the same parameters."""
    source = copy.deepcopy(plain.double())
    kind = QuantConv2d if isinstance(plain, nn.Conv2d) else QuantLinear
    weight, activation = PAIRS[pair]
    layer = kind.from_float(source, weight(), activation())
    assert layer.weight is source.weight
    assert layer.bias is source.bias
    return layer, plain


def conv(geometry: str, mode: str = "zeros", bias: bool = True) -> nn.Conv2d:
    base = {"in_channels": 4, "out_channels": 6, "kernel_size": 3, "padding": 1}
    return nn.Conv2d(**{**base, **GEOMETRIES[geometry], "padding_mode": mode, "bias": bias})


@pytest.mark.filterwarnings("ignore:Using padding=.same. with even kernel lengths")
@pytest.mark.parametrize(("geometry", "mode"), list(product(GEOMETRIES, PADDINGS)))
def test_convolution_of_codes_is_the_convolution_of_what_they_stand_for(geometry: str, mode: str) -> None:
    torch.manual_seed(0)
    for pair, bias in product(PAIRS, (True, False)):
        layer, plain = twins(conv(geometry, mode, bias), pair)
        assert_same(layer, 3 * torch.randn(2, 4, 7, 6, dtype=torch.float64), plain)


@pytest.mark.parametrize("bias", [True, False])
@pytest.mark.parametrize("pair", PAIRS)
def test_linear(pair: str, bias: bool) -> None:
    torch.manual_seed(0)
    layer, plain = twins(nn.Linear(5, 3, bias), pair)
    assert_same(layer, 3 * torch.randn(4, 5, dtype=torch.float64), plain)


def test_identity_quantizers_give_the_float_layer_bit_for_bit() -> None:
    torch.manual_seed(0)
    for geometry, mode in product(GEOMETRIES, PADDINGS):
        plain = conv(geometry, mode, bias=False)
        layer = QuantConv2d.from_float(plain, Identity(), Identity())
        x = torch.randn(2, 4, 7, 6)
        assert torch.equal(layer(x), plain(x))


def test_zero_padding_adds_the_code_0() -> None:
    """A padded 0 stays 0 and does not become +1, although sign(0) is +1."""
    layer = QuantConv2d.from_float(
        nn.Conv2d(1, 1, 3, padding=1, bias=False), BinaryWeight(scale=False), BinaryActivation()
    )
    layer.weight.data.fill_(1.0)
    assert layer(torch.ones(1, 1, 3, 3)).tolist() == [[[[4, 6, 4], [6, 9, 6], [4, 6, 4]]]]


def test_the_geometry_and_training_mode_are_taken_over() -> None:
    plain = conv("strided", "reflect").eval()
    layer = QuantConv2d.from_float(plain, BinaryWeight(), BinaryActivation())
    for name in (
        "in_channels",
        "out_channels",
        "kernel_size",
        "stride",
        "padding",
        "dilation",
        "groups",
        "padding_mode",
    ):
        assert getattr(layer, name) == getattr(plain, name)
    assert not layer.training
    assert [n for n, _ in layer.named_parameters()] == ["weight", "bias"] == list(layer.state_dict())


@pytest.mark.parametrize(
    ("pair", "bits"),
    [
        ("dorefa", 3 * 216 + 32 * 6),  # its scale is a constant
        ("binary", 1 * 216 + 32 * (6 + 6)),  # a scale and a bias for each filter
        ("ternary", 2 * 216 + 32 * (6 + 6)),
        ("no_scale", 2 * 216 + 32 * 6),
        ("identity", 32 * 216 + 32 * 6),
    ],
)
def test_stored_bits(pair: str, bits: int) -> None:
    layer, plain = twins(conv("plain"), pair)
    assert plain.weight.numel() == 216
    assert layer.stored_bits() == bits
    bare, _ = twins(conv("plain", bias=False), pair)
    assert bare.stored_bits() == bits - 32 * 6
