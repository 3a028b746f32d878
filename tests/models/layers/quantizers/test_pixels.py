"""A layer that reads the picture's bytes: all bytes are exact, and its sums are those of the normalised picture."""

from __future__ import annotations

import pytest
import torch
from torch.nn import functional as F

from engine.data.augment import normalise
from engine.data.info import DataInfo
from models.layers.conv_q import QuantConv2d
from models.layers.quantizers.affine import AffineWeight
from models.layers.quantizers.pixels import PixelCodes, PixelWeight, by_group

NORMALISED = [
    ((0.4914, 0.4822, 0.4465), (0.2023, 0.1994, 0.201)), ((0.5, 0.4, 0.3), (0.3, 0.2, 0.25)),
    ((0.0, 0.0, 0.0), (1.0, 1.0, 1.0)), ((1.0, 0.0, 0.5), (0.001, 5.0, 1.0)),
]  # fmt: skip
EVERY = torch.arange(256).byte().reshape(1, 16, 16, 1).expand(1, 16, 16, 3)


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
@pytest.mark.parametrize(("mean", "std"), NORMALISED)
def test_every_byte_is_its_own_code(mean: tuple, std: tuple, dtype: torch.dtype) -> None:
    quantizer = PixelCodes(mean, std).to(dtype)
    x = normalise(EVERY, DataInfo.unknown(10, 16).normalised(mean, std)).to(dtype)
    codes, scale = quantizer(x)
    center = torch.tensor([255 * n for n in mean]).round()
    assert quantizer.centers() == center.tolist()
    assert torch.equal(codes, EVERY.permute(0, 3, 1, 2).to(dtype) - center.to(dtype)[:, None, None])
    assert (scale, codes.dtype) == (None, dtype)
    assert quantizer.span() == (codes.min(), codes.max())
    assert torch.equal(quantizer(torch.zeros(1, 3, 1, 1, dtype=dtype)).codes, torch.zeros(1, 3, 1, 1, dtype=dtype))


def test_numbers_beyond_bytes_are_clipped_and_those_between_rounded() -> None:
    quantizer = PixelCodes((0.0,), (1.0,))
    x = torch.tensor([-1.0, 0.4 / 255, 0.6 / 255, 254.6 / 255, 2.0]).reshape(1, 1, 1, 5)
    assert quantizer(x).codes.flatten().tolist() == [0, 0, 1, 255, 255]


def test_a_network_without_pictures_of_bytes_still_has_a_gradient_for_its_input() -> None:
    x = torch.full((1, 1, 2, 2), 0.3, requires_grad=True)
    PixelCodes((0.5,), (0.25,))(x).codes.sum().backward()
    assert x.grad is not None
    assert x.grad.unique().tolist() == [255 * 0.25]


def test_channels_of_groups() -> None:
    numbers = torch.tensor([1, 2, 3, 4])
    assert by_group(numbers, 4, 2).tolist() == [[1, 2], [1, 2], [3, 4], [3, 4]]
    assert by_group(numbers, 2, 1).tolist() == [[1, 2, 3, 4]] * 2
    assert by_group(numbers, 8, 4).tolist() == [[1], [1], [2], [2], [3], [3], [4], [4]]


@torch.no_grad()
@pytest.mark.parametrize("groups", [1, 3])
@pytest.mark.parametrize(("mean", "std"), NORMALISED[:3])
def test_the_sums_are_those_of_a_picture_whose_mean_is_a_byte(mean: tuple, std: tuple, groups: int) -> None:
    torch.manual_seed(0)
    conv = torch.nn.Conv2d(3, 6, 3, 2, 1, groups=groups).double()
    layer = QuantConv2d.from_float(
        conv, PixelWeight(AffineWeight(8, True, True), std, 6, groups).double(), PixelCodes(mean, std).double()
    )
    near = [round(255 * m) / 255 for m in mean]
    bytes_ = torch.randint(0, 256, (4, 3, 9, 9))
    x, exact = (
        (bytes_ / 255 - torch.tensor(m)[:, None, None]) / torch.tensor(std)[:, None, None] for m in (mean, near)
    )
    codes, scale = layer.weight_codes()
    assert scale is not None
    assert torch.equal(codes.abs().amax((1, 2, 3)), torch.full((6,), 127.0, dtype=torch.float64))
    assert torch.equal(codes, codes.round())
    weight = codes * scale * layer.weight_quantizer.spread
    rows = conv.weight / layer.weight_quantizer.spread
    assert ((weight - conv.weight) / layer.weight_quantizer.spread).abs().amax() <= rows.abs().amax() / 127 / 2 * 1.0001
    expected = F.conv2d(exact.double(), weight, conv.bias, 2, 1, 1, groups)
    assert torch.allclose(layer(x.double()), expected, atol=2e-6)


def test_a_weight_learns_as_if_it_were_not_rounded() -> None:
    weight = torch.randn(4, 3, 3, 3, requires_grad=True)
    quantizer = PixelWeight(AffineWeight(8, True, True), (0.2, 0.3, 0.4), 4, 1)
    codes, scale = quantizer(weight)
    (codes * scale * quantizer.spread).sum().backward()
    assert weight.grad is not None
    assert torch.allclose(weight.grad, torch.ones(4, 3, 3, 3))
