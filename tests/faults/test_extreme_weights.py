"""Extreme weights and activations: zeros, constants, subnormal and huge numbers."""

from __future__ import annotations

import pytest
import torch

from models.layers.quantizers.binary import sign_ste
from models.layers.quantizers.identity import Identity
from tests.tools.quantizer_cases import ACTIVATIONS, CASES, named, value

every = pytest.mark.parametrize("name", CASES)

_SIGNS = torch.randn(4, 64, 3, 3, generator=torch.Generator().manual_seed(0)).sign()
_SIZES = torch.randn(4, 64, 3, 3, generator=torch.Generator().manual_seed(1))
EXTREMES = {
    "all zero": 0 * _SIGNS,
    "constant": torch.full_like(_SIGNS, 0.3),
    "negative constant": torch.full_like(_SIGNS, -0.3),
    "one element": torch.tensor(0.7).reshape(1, 1, 1, 1),
    "one negative element": torch.tensor(-0.7).reshape(1, 1, 1, 1),
    "one element of zero": torch.zeros(1, 1, 1, 1),
    "subnormal": 1e-40 * _SIZES,
    "the smallest": 1.4e-45 * _SIGNS,
    "1e38": 1e38 * _SIGNS,
    "the largest": torch.finfo(torch.float32).max * _SIGNS,
    "1e38 constant": torch.full_like(_SIGNS, 1e38),
    "1e38 depthwise": 1e38 * _SIGNS[:, :1],
    "large and subnormal": torch.where(_SIGNS > 0, 1e38, -1e-45),
    "one outlier": torch.where(torch.arange(_SIGNS.numel()).reshape(_SIGNS.shape) == 0, 1e38, 1e-3 * _SIZES),
}


@every
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_extreme_weights_give_finite_numbers_of_few_levels(name: str, dtype: torch.dtype) -> None:
    """G1: 14 weights, gradients included."""
    case = CASES[name]
    for what, weight in EXTREMES.items():
        weight = weight.to(dtype, copy=True).requires_grad_()
        found = case.quantize(weight)
        assert torch.isfinite(value(found)).all(), what
        assert torch.equal(found.codes, found.codes.round()), what
        if found.scale is not None:
            assert torch.isfinite(found.scale).all(), what
            assert (found.scale >= 0).all(), what
        parts = list(found.codes) if case.own else [found.codes]
        assert max(len(part.unique()) for part in parts) <= case.levels, what
        value(found).sum().backward()
        assert torch.isfinite(weight.grad).all(), what


@every
def test_what_constants_become(name: str) -> None:
    """G1: filters of one value are exact if the formula can represent them."""
    for constant in (0.3, -0.3):
        for shape in ((1, 1, 1, 1), (3, 2, 3, 3)):
            found = value(CASES[name].quantize(torch.full(shape, constant, dtype=torch.float64)))
            expected = constant
            if name.startswith("dorefa") or name.endswith("without scale"):
                expected = 1 if constant > 0 else -1
            if name.startswith("binary") and shape[1] > 1:  # centring gives 0, and the sign of 0 is +1
                expected = 1 if name.endswith("without scale") else 0
            torch.testing.assert_close(found, torch.full(shape, expected, dtype=torch.float64), rtol=1e-12, atol=0)


@pytest.mark.parametrize("name", named("binary"))
def test_binary_codes_of_zeros_are_plus_one(name: str) -> None:
    """G3."""
    weight = torch.tensor([0.0, -0.0, 1e-45, -1e-45, 1.0, -1.0]).reshape(6, 1, 1, 1)
    assert CASES[name].quantize(weight).codes.flatten().tolist() == [1, 1, 1, -1, 1, -1]
    for kind in ("ste", "saturate", "soft"):
        assert sign_ste(weight, kind).flatten().tolist() == [1, 1, 1, -1, 1, -1]


@pytest.mark.parametrize("name", ACTIVATIONS)
def test_extreme_activations_give_finite_numbers_and_gradients(name: str) -> None:
    """G1."""
    for what, x in EXTREMES.items():
        x = x.clone().requires_grad_()
        quantizer = ACTIVATIONS[name]()
        found = quantizer(x)
        assert torch.isfinite(value(found)).all(), what
        assert len(found.codes.unique()) <= 2 ** max(quantizer.bits, 1), what
        value(found).sum().backward()
        assert torch.isfinite(x.grad).all(), what


def test_32_bits_are_exact() -> None:
    for weight in EXTREMES.values():
        codes, scale = Identity()(weight)
        assert codes is weight
        assert scale is None
