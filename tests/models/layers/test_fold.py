"""The algebra of both folds: conv + BN == folded conv to 1e-12, and the binary fold always has the BN's sign.

The oracle of the ordinary fold is torch's own BN in float64, that of the binary fold is integer arithmetic.
"""

from __future__ import annotations

from itertools import product

import pytest
import torch
from hypothesis import strategies as st
from torch import Tensor, nn

from models.layers import fold
from tests.tools.draws import drawn

REACH = 40
Z = torch.arange(-REACH, REACH + 1, dtype=torch.float64)[:, None]
"""Every integer that a convolution of codes might give, (81, 1): a row for each value, a column for each channel."""


def norm(channels: int, affine: bool = True, eps: float = 1e-5) -> nn.BatchNorm2d:
    """Return a BN with gammas of both signs and 0, and variances from 1e-9 to 10, one of exactly 0."""
    made = nn.BatchNorm2d(channels, eps=eps, affine=affine, dtype=torch.float64).eval()
    made.running_mean.normal_()
    made.running_var.copy_(10 ** (10 * torch.rand(channels) - 9))
    made.running_var[1] = 0
    if affine:
        made.weight.data.normal_()
        made.bias.data.normal_()
        made.weight.data[0] = 0
        made.weight.data[1:3] = torch.tensor([-1.5, 0.5])
    return made


@pytest.mark.parametrize(("affine", "bias", "groups"), list(product([True, False], [True, False], [1, 2, 4])))
def test_conv_and_batch_norm_are_one_convolution(affine: bool, bias: bool, groups: int) -> None:
    for seed, eps in product(range(10), (1e-5, 1e-2, 1e-8)):
        torch.manual_seed(seed)
        conv = nn.Conv2d(4, 8, 3, padding=1, groups=groups, bias=bias, dtype=torch.float64)
        bn, x = norm(8, affine, eps), torch.randn(3, 4, 6, 6, dtype=torch.float64)
        multiplier, shift = fold.in_eval(bn)
        assert not multiplier.requires_grad
        expected = bn(conv(x)).detach()
        old = conv.bias.detach() if bias else torch.zeros(8)
        weight = conv.weight.detach() * multiplier.reshape(-1, 1, 1, 1)
        found = nn.functional.conv2d(x, weight, old * multiplier + shift, padding=1, groups=groups)
        largest = expected.abs().amax((0, 2, 3), keepdim=True)
        assert ((found - expected).abs() <= 1e-12 * largest).all()
        if affine:
            assert torch.equal(found[:, 0], bn.bias[0].detach().expand(3, 6, 6))  # gamma 0: only beta


def test_half_an_affine_pair_and_a_half_that_cannot_be_folded() -> None:
    bn = norm(4)
    multiplier = fold.in_eval(bn).multiplier
    bn.bias = None  # torch makes both or none, but users may not
    assert torch.equal(fold.in_eval(bn).multiplier, multiplier)
    assert torch.equal(fold.in_eval(bn).shift, -bn.running_mean * multiplier)
    with pytest.raises(ValueError, match="without running statistics"):
        fold.in_eval(nn.BatchNorm2d(4, track_running_stats=False))


SIXTEENTHS = st.integers(-64, 64) | st.sampled_from([0, 1, -1, 16, -16])
CHANNEL = st.tuples(SIXTEENTHS, st.integers(0, 64) | st.just(0), SIXTEENTHS, st.integers(-(16**3), 16**3))


def folded_signs(multiplier: Tensor, shift: Tensor, scale: Tensor, bias: Tensor) -> Tensor:
    """Return +1 and -1, (81, channels), by fold.threshold."""
    flip, offset = fold.threshold(fold.Affine(multiplier, shift), scale, bias, torch.full_like(scale, REACH))
    assert set(flip.tolist()) <= {-1.0, 1.0}
    return torch.where(flip * Z + offset >= 0, 1.0, -1.0)


@drawn(400, few=60, channels=st.lists(CHANNEL, min_size=1, max_size=20))
def test_the_binary_fold_never_differs(channels: list[tuple[int, int, int, int]]) -> None:
    """All values are multiples of 1/16, so that the truth is exact, also on the threshold (sign(0) = +1)."""
    truth = [
        [1.0 if m * (a * z + b) + 16 * s >= 0 else -1.0 for m, a, b, s in channels] for z in range(-REACH, REACH + 1)
    ]
    m, a, b, s = (torch.tensor(column, dtype=torch.float64) / 16 for column in zip(*channels, strict=True))
    assert torch.equal(folded_signs(m, s, a, b), torch.tensor(truth, dtype=torch.float64))


@pytest.mark.parametrize("seed", range(5))
def test_the_naive_folds_do_differ(seed: int) -> None:
    torch.manual_seed(seed)
    bn = norm(1000)
    bn.running_var.uniform_(1, 300)
    bias, scale = torch.randn(2, 1000, dtype=torch.float64)
    scale = scale.abs()
    sigma = (bn.running_var + bn.eps).sqrt()
    truth = torch.where(bn((scale * Z + bias)[:, :, None, None])[..., 0, 0] >= 0, 1.0, -1.0)
    assert torch.equal(folded_signs(*fold.in_eval(bn), scale, bias), truth)  # 81,000 of 81,000
    assert torch.equal(truth[:, 0], truth[:1, 0].expand(len(Z)))  # gamma 0 is a constant channel
    for offset in (bn.bias * sigma / bn.weight.abs(), bn.bias * sigma):  # without sgn(gamma), without gamma
        naive = torch.where(scale * Z + bias - bn.running_mean + offset >= 0, 1.0, -1.0)
        assert 0.3 < (naive == truth).double().mean() < 0.8


def test_with_gamma_1_the_naive_fold_is_right() -> None:
    torch.manual_seed(0)
    bn = norm(50)
    bn.weight.data.fill_(1)
    sigma = (bn.running_var + bn.eps).sqrt()
    naive = torch.where(Z - bn.running_mean + bn.bias * sigma >= 0, 1.0, -1.0)
    one, zero = torch.ones(50, dtype=torch.float64), torch.zeros(50, dtype=torch.float64)
    assert torch.equal(folded_signs(*fold.in_eval(bn), one, zero), naive)


@pytest.mark.parametrize(
    ("codes", "kept"),
    [
        ([-127, 0, 127], torch.int8), ([128, 0, 1], torch.int16), ([-128, 0, 1], torch.int16), ([0, 0, 0], torch.int8),
        ([-32767, 32767, 0], torch.int16), ([32768, 0, 0], torch.float64), ([0.5, 1, 0], torch.float64),
    ],
)  # fmt: skip
def test_codes_are_stored_in_the_narrowest_type_that_holds_them(codes: list[float], kept: torch.dtype) -> None:
    raw = torch.tensor(codes, dtype=torch.float64)
    found = fold.stored(raw)
    assert found.dtype == kept
    assert torch.equal(found.double(), raw)
    found.fill_(9)
    assert raw.tolist() == codes  # a copy, whatever its type


def test_flip_turns_the_sign_of_its_channels_and_counts_a_bit_each() -> None:
    flip = fold.Flip(torch.tensor([1.0, -1.0]))
    x = torch.randn(2, 2, 3, 3, dtype=torch.float64)
    assert torch.equal(flip(x), torch.stack([x[:, 0], -x[:, 1]], 1))
    assert flip.stored_bits() == 2
