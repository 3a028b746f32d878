"""Products of codes in each precision."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor, nn

from engine.numerics import precision
from models.layers import eight_bits, products


def whole(low: int, high: int, *shape: int) -> Tensor:
    return torch.randint(low, high + 1, shape).float()


LAYERS = {
    "3x3": nn.Conv2d(64, 20, 3, padding=1),
    "strided": nn.Conv2d(64, 20, 3, stride=2),
    "reflected": nn.Conv2d(64, 20, 3, padding=1, padding_mode="reflect"),
    "groups": nn.Conv2d(64, 32, 3, groups=4),
    "depthwise": nn.Conv2d(64, 64, 5, groups=64),
}


@pytest.mark.parametrize("name", LAYERS)
@pytest.mark.parametrize("largest", [15, 255])
def test_exact_is_exact(name: str, largest: int) -> None:
    """The sums equal integers in fp64; a sum above 2^24 is rounded once."""
    torch.manual_seed(1)
    conv = LAYERS[name]
    x, weight = whole(0, largest, 2, 64, 9, 9), whole(-largest, largest, *conv.weight.shape)
    wanted = products.convolve(conv, x.double(), weight.double(), lambda: (0, largest)).float()
    with precision.computing("exact"):
        assert torch.equal(products.convolve(conv, x, weight, lambda: (0, largest)), wanted)


def test_sums_that_pass_2_to_24_are_split() -> None:
    """All numbers are odd and of one sign: fp32 would round each partial sum beyond 2^24."""
    torch.manual_seed(1)
    conv = nn.Conv2d(512, 4, 3)
    x, weight = whole(254, 255, 1, 512, 3, 3) // 2 * 2 + 1, whole(100, 127, 4, 512, 3, 3) // 2 * 2 + 1
    wanted = products.convolve(conv, x.double(), weight.double(), lambda: (0, 255))
    assert wanted.max() > products.SUM
    with precision.computing("exact"):
        found = products.convolve(conv, x, weight, lambda: (0, 255))
        lines = products.linear(x.flatten(1), weight.flatten(1), lambda: (0, 255))
    assert torch.equal(found, wanted.float())
    assert torch.equal(lines, (x.flatten(1).double() @ weight.flatten(1).double().T).float())


def test_how_far_sums_reach() -> None:
    weight = torch.tensor([[3.0, -2.0], [-1.0, -1.0]])
    assert products.reach(weight, (0, 10)) == 30
    assert products.reach(weight, (-10, 10)) == 50
    assert products.reach(weight, (-4, 10)) == 38
    assert products.reach(weight, (1, 10)) == 30  # a border of zeros counts


def test_exact_has_the_gradients_of_fp32() -> None:
    torch.manual_seed(1)
    conv, found = nn.Conv2d(64, 20, 3), []
    for how in ("fp32", "exact"):
        torch.manual_seed(2)
        x, weight = whole(0, 255, 2, 64, 9, 9).requires_grad_(), whole(-255, 255, 20, 64, 3, 3).requires_grad_()
        with precision.computing(how):
            y = products.convolve(conv, x, weight, lambda: (0, 255))
        (y * torch.linspace(-1, 1, y.numel()).reshape(y.shape)).sum().backward()
        found.append((x.grad, weight.grad))
    for one, other in zip(*found, strict=True):
        torch.testing.assert_close(one, other, rtol=1e-4, atol=1e-2)


def test_bf16_rounds_the_result_alone() -> None:
    torch.manual_seed(1)
    conv = nn.Conv2d(64, 20, 3)
    x, weight = whole(0, 255, 2, 64, 9, 9), whole(-255, 255, 20, 64, 3, 3)
    wanted = products.convolve(conv, x.double(), weight.double(), lambda: (0, 255))
    with precision.computing("bf16"):
        found = products.convolve(conv, x, weight, lambda: (0, 255))
    assert found.dtype == torch.float32
    assert torch.equal(found, found.bfloat16().float())
    assert ((found - wanted).abs() <= wanted.abs() * 2**-8 + 1e-3).all()


def test_numbers_that_are_no_codes_are_never_rounded() -> None:
    torch.manual_seed(1)
    conv, x = nn.Conv2d(64, 20, 3), torch.randn(2, 64, 9, 9)
    wanted = products.convolve(conv, x, conv.weight, None)
    for how in ("bf16", "exact"):
        with precision.computing(how):
            assert torch.equal(products.convolve(conv, x, conv.weight, None), wanted)
            assert torch.equal(products.linear(x, torch.eye(9), None), x @ torch.eye(9))


def test_switches_are_put_back(monkeypatch: pytest.MonkeyPatch) -> None:
    switch, seen = torch.backends.mkldnn.conv, []
    before = switch.fp32_precision

    def fails(*_: object) -> Tensor:
        seen.append(switch.fp32_precision)
        raise KeyError

    monkeypatch.setattr(products, "convolution", fails)
    monkeypatch.setattr(eight_bits, "fits", lambda *_: False)
    for largest in (255, 300):  # bf16 does not hold all integers up to 300
        with precision.computing("exact"), pytest.raises(KeyError):
            products.convolve(
                nn.Conv2d(4, 4, 3), whole(0, 3, 1, 4, 5, 5), whole(0, 3, 4, 4, 3, 3), lambda most=largest: (0, most)
            )
        assert switch.fp32_precision == before
    assert seen == ["bf16", before]
