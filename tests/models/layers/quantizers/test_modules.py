"""Quantizer modules equal their formulas with settings; their common treatment of zeros, edges and unknown words."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from models.layers.quantizers.base import Quantizer, sign, slope
from models.layers.quantizers.binary import BinaryActivation, BinaryWeight, binary_weight, sign_ste
from models.layers.quantizers.dorefa import DorefaActivation, DorefaWeight, dorefa_activation, dorefa_weight
from models.layers.quantizers.identity import Identity
from models.layers.quantizers.ternary import TernaryActivation, TernaryWeight, ternary_activation, ternary_weight

TABLE = [
    (DorefaWeight(4), lambda x: dorefa_weight(x, 4), 4, 0, False),
    (DorefaActivation(3), lambda x: dorefa_activation(x, 3), 3, 0, False),
    (BinaryWeight(), lambda x: binary_weight(x, True, "ste"), 1, 1, False),
    (BinaryWeight(False, "saturate"), lambda x: binary_weight(x, False, "saturate"), 1, 0, False),
    (TernaryWeight(), lambda x: ternary_weight(x, True, "ste"), 2, 1, False),
    (TernaryWeight(False, "saturate"), lambda x: ternary_weight(x, False, "saturate"), 2, 0, False),
    (BinaryActivation("soft"), lambda x: (sign_ste(x, "soft"), None), 1, 0, True),
    (TernaryActivation("ste"), lambda x: (ternary_activation(x, "ste"), None), 2, 0, True),
]


@pytest.mark.parametrize(
    ("module", "function", "bits", "scales", "signed"), TABLE, ids=lambda v: getattr(v, "_get_name", str)()
)
def test_a_module_is_its_formula(module: Quantizer, function, bits: int, scales: int, signed: bool) -> None:
    torch.manual_seed(0)
    x, twin = (torch.randn(4, 3, 3, 3).mul(2).requires_grad_() for _ in range(2))
    twin.data.copy_(x)
    for found, expected in zip(module(x), function(twin), strict=True):
        assert (found is None) == (expected is None)
        assert found is None or torch.equal(found, expected)
    module(x)[0].square().sum().backward()
    function(twin)[0].square().sum().backward()
    assert torch.equal(x.grad, twin.grad)
    assert (module.bits, module.scales, module.signed) == (bits, scales, signed)
    assert not list(module.parameters())
    assert not module.state_dict()


def test_zeros() -> None:
    zero = torch.zeros(2, 3, 3, 3, dtype=torch.float64)
    for bits in (2, 3, 4, 8):
        levels = 2**bits - 1  # t * levels ends in .5: half to even
        assert (dorefa_weight(zero, bits).codes == 2 * np.rint(levels / 2) - levels).all()
    binary, ternary = binary_weight(zero), ternary_weight(zero)
    assert (binary.codes == 1).all()
    assert (binary.scale == 0).all()
    assert (ternary.codes == 0).all()
    assert (ternary.scale == 0).all()
    assert sign(torch.tensor([0.0, -0.0])).tolist() == [1.0, 1.0]


def test_on_the_edges_of_a_clip_there_is_a_gradient() -> None:
    """The gradient of torch.clamp differs there between versions."""
    x = torch.tensor([0.0, 10.0], requires_grad=True)
    dorefa_activation(x, 2).codes.sum().backward()
    torch.testing.assert_close(x.grad, torch.tensor([0.3, 0.3]))
    weight = torch.tensor([1.0, -1.0, 0.5, -2.0]).reshape(1, 1, 2, 2).requires_grad_()
    binary_weight(weight).scale.sum().backward()
    assert weight.grad.flatten().tolist() == [0.25, -0.25, 0.25, 0]


def test_32_bits_are_the_identity_and_unknown_estimators_are_refused() -> None:
    x = torch.randn(3, requires_grad=True)
    codes, scale = Identity()(x)
    assert codes is x
    assert scale is None
    with pytest.raises(ValueError, match="unknown straight-through"):
        slope(x, "magic")
