"""Products of codes by int8 convolutions. Weights within +-31 are exact on any processor, as pairs of products fit 16 bits."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor, nn

from engine.numerics import onednn, precision
from models.layers import eight_bits, products, qconv
from tests.tools import int8


@pytest.fixture(autouse=True)
def _taken(monkeypatch: pytest.MonkeyPatch) -> None:
    int8.take(monkeypatch)


def whole(low: int, high: int, *shape: int) -> Tensor:
    return torch.randint(low, high + 1, shape).float()


LAYERS = {
    "3x3": nn.Conv2d(12, 20, 3, padding=1),
    "strided, dilated": nn.Conv2d(12, 20, 3, stride=2, dilation=2, padding=(2, 1)),
    "groups": nn.Conv2d(12, 8, 3, groups=4, padding=2),
    "depthwise": nn.Conv2d(12, 12, 5, groups=12),
}


def weights_and_inputs(name: str, codes: tuple[int, int], odd: bool) -> tuple[nn.Conv2d, Tensor, Tensor]:
    torch.manual_seed(1)
    conv = LAYERS[name]
    weight = whole(-31, 31, *conv.weight.shape)
    if odd:
        weight = 2 * weight + 1
        weight[0, 0, 0, 0] = 255  # does not fit a byte
    x = whole(*codes, 2, 12, 9, 9)
    assert eight_bits.fits(conv, x.device, codes)
    assert eight_bits.layout(conv, tuple(x.shape), weight, codes) is not None
    return conv, weight, x


def product(
    conv: nn.Conv2d, how: str, x: Tensor, weight: Tensor, codes: tuple[int, int], behind: Tensor
) -> list[Tensor]:
    """Return the product, and both gradients for the gradient `behind`."""
    x, weight = (part.detach().clone().requires_grad_() for part in (x, weight))
    with precision.computing(how):
        y = products.convolve(conv, x, weight, lambda: codes)
    y.backward(behind.to(y.dtype).reshape(y.shape))
    assert x.grad is not None
    assert weight.grad is not None
    return [y.detach(), x.grad, weight.grad]


@pytest.mark.parametrize("odd", [False, True], ids=["bytes", "odd"])
@pytest.mark.parametrize("codes", [(0, 255), (-78, 177), (-128, 127), (-1, 1)], ids=str)
@pytest.mark.parametrize("name", LAYERS)
def test_they_are_the_same_products_with_the_same_gradients(
    name: str, codes: tuple[int, int], odd: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(precision, "has_bf16", lambda _: False)
    conv, weight, x = weights_and_inputs(name, codes, odd)
    behind = torch.linspace(-1, 1, conv(x).numel())
    y, *grads = product(conv, "exact", x, weight, codes, behind)
    want, *wanted = product(conv, "fp32", x.double(), weight.double(), codes, behind)
    assert torch.equal(y.double(), want)
    for one, other in zip(grads, wanted, strict=True):
        torch.testing.assert_close(one.double(), other, rtol=1e-4, atol=1e-2)


@pytest.mark.skipif(not precision.has_bf16(torch.device("cpu")), reason="no bf16 in this processor")
@pytest.mark.parametrize("kind", [torch.float32, torch.bfloat16], ids=str)
@pytest.mark.parametrize("odd", [False, True], ids=["bytes", "odd"])
@pytest.mark.parametrize("name", LAYERS)
def test_bf16_rounds_their_gradients_and_nothing_else(name: str, odd: bool, kind: torch.dtype) -> None:
    """The gradient from behind and the result are rounded to bf16; codes are exact in it, and so is the product."""
    codes = (0, 255)
    conv, weight, x = weights_and_inputs(name, codes, odd)
    behind = torch.linspace(-1, 1, conv(x).numel())
    y, of_x, of_weight = product(conv, "exact", x.to(kind), weight, codes, behind)
    rounded = behind if onednn.in_fp32(conv, x.shape[2:]) else behind.bfloat16()
    want, *wanted = product(conv, "fp32", x.double(), weight.double(), codes, rounded)
    assert y.dtype == torch.float32
    assert torch.equal(y.double(), want)
    assert (of_x.dtype, of_weight.dtype) == (kind, torch.float32)
    for one, other in zip((of_x, of_weight), wanted, strict=True):
        torch.testing.assert_close(one.double(), other, rtol=2**-8, atol=1e-2)


def test_sums_that_fp32_does_not_hold_are_rounded_once() -> None:
    conv = nn.Conv2d(900, 4, 3)
    weight, x = torch.full((4, 900, 3, 3), 61.0), torch.full((1, 900, 3, 3), 255.0)
    weight[0, 0, 0, 0] = 1
    wanted = products.convolve(conv, x.double(), weight.double(), lambda: (0, 255))
    assert wanted.min() > products.SUM
    with precision.computing("exact"):
        assert torch.equal(products.convolve(conv, x, weight, lambda: (0, 255)), wanted.float())


@pytest.mark.parametrize(
    ("codes", "padding"),
    [
        ((-1, 255), 0),  # 257 codes
        ((1, 3), 0),  # no 0 for a border
        ((0, 255), "same"),
    ],
)
def test_inputs_that_bytes_do_not_hold_are_convolved_otherwise(codes: tuple[int, int], padding: int | str) -> None:
    conv = nn.Conv2d(3, 4, 3, padding=padding)
    assert not eight_bits.fits(conv, torch.device("cpu"), codes)
    assert eight_bits.fits(nn.Conv2d(3, 4, 3), torch.device("cpu"), (0, 255))


def test_weights_that_bytes_do_not_hold_have_no_layout() -> None:
    conv, x = nn.Conv2d(3, 4, 3), torch.ones(1, 3, 5, 5)
    even, large = torch.full((4, 3, 3, 3), 128.0), torch.full((4, 3, 3, 3), 257.0)
    for weight, fits in ((even, False), (large, False), (even - 1, True)):
        assert (eight_bits.layout(conv, (1, 3, 5, 5), weight, (0, 255)) is not None) == fits
    with precision.computing("exact"):
        assert torch.equal(products.convolve(conv, x, even, lambda: (0, 255)), torch.full((1, 4, 3, 3), 128.0 * 27))


def test_a_processor_that_is_not_exact_is_not_asked(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(qconv, "trusted", lambda: "it is wrong")
    assert not eight_bits.fits(nn.Conv2d(3, 4, 3), torch.device("cpu"), (0, 255))
