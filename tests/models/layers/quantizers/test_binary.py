"""Binary weights and activations equal an oracle written only from the formulas: codes, scales, gradients."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from hypothesis import assume

from models.layers.quantizers.binary import binary_weight, sign_ste
from tests.models.layers.quantizers.oracle import inputs, pseudo, quantized, upstream, weights
from tests.tools.draws import drawn


@pytest.mark.parametrize("scaled", [True, False])
@pytest.mark.parametrize("kind", ["ste", "saturate"])
@drawn(weight=weights())
def test_binary_weight(kind: str, scaled: bool, weight: np.ndarray) -> None:
    alone = weight.shape[1] == 1  # centring would give 0
    middle = weight if alone else weight - weight.sum(1, keepdims=True) / weight.shape[1]
    live = np.abs(weight).max((1, 2, 3)) > 0
    assume((np.abs(middle[live]) > 1e-9).all())
    codes, scale, gradient = quantized(lambda w: binary_weight(w, scaled, kind), weight)
    assert np.array_equal(codes, np.where(middle >= 0, 1, -1))
    up, size = upstream(*weight.shape), middle[0].size
    expected = up * pseudo(middle, kind)
    to_scale = upstream(len(weight), 1, 1, 1)
    if scaled:
        np.testing.assert_allclose(scale, np.minimum(abs(middle), 1).mean((1, 2, 3), keepdims=True), rtol=1e-12)
        expected = expected + to_scale * np.sign(middle) * (np.abs(middle) <= 1) / size
    else:
        assert scale is None
    if not alone:  # centring subtracts the gradient's mean, too
        expected = expected - expected.mean(1, keepdims=True)
    np.testing.assert_allclose(gradient(up, to_scale), expected, rtol=1e-9, atol=1e-12)


@pytest.mark.parametrize("kind", ["ste", "saturate", "soft"])
@drawn(x=inputs)
def test_binary_activation(kind: str, x: np.ndarray) -> None:
    up = upstream(*x.shape)
    codes, _, gradient = quantized(lambda t: sign_ste(t, kind), x)
    assert np.array_equal(codes, np.where(x >= 0, 1, -1))
    np.testing.assert_allclose(gradient(up), up * pseudo(x, kind), rtol=1e-12)
    assert torch.equal(sign_ste(torch.tensor(codes), kind), torch.tensor(codes))
