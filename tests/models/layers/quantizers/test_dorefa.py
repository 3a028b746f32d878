"""DoReFa equals an oracle written only from the formulas: codes, scales, and gradients inside and outside the clip."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from models.layers.quantizers.dorefa import dorefa_activation, dorefa_weight
from tests.models.layers.quantizers.oracle import inputs, off_tie, quantized, upstream, weights
from tests.tools.draws import drawn


@pytest.mark.parametrize("bits", range(2, 9))
@drawn(weight=weights())
def test_dorefa_weight(bits: int, weight: np.ndarray) -> None:
    levels, squashed = 2**bits - 1, np.tanh(weight)
    peak = np.abs(squashed).max() or 1.0  # all-zero weights: t = 1/2
    steps = (squashed / (2 * peak) + 0.5) * levels
    codes, scale, gradient = quantized(lambda w: dorefa_weight(w, bits), weight)
    clear = off_tie(steps)
    assert np.array_equal(codes[clear], 2 * np.rint(steps)[clear] - levels)
    assert ((codes % 2 == 1) & (abs(codes) <= levels)).all()
    assert scale == 1 / levels
    up = upstream(*weight.shape)
    expected = up * 2 * levels * (1 - squashed**2) / (2 * peak)  # the maximum is a constant
    np.testing.assert_allclose(gradient(up), expected, rtol=1e-9)


@pytest.mark.parametrize("bits", range(2, 9))
@drawn(x=inputs)
def test_dorefa_activation(bits: int, x: np.ndarray) -> None:
    levels = 2**bits - 1
    steps = np.minimum(np.maximum(0.1 * x, 0), 1) * levels
    codes, scale, gradient = quantized(lambda t: dorefa_activation(t, bits), x)
    clear = off_tie(steps)
    assert np.array_equal(codes[clear], np.rint(steps)[clear])
    assert (codes >= 0).all()
    assert (codes <= levels).all()
    assert scale == 1 / levels
    up = upstream(*x.shape)
    expected = up * 0.1 * levels * ((0.1 * x >= 0) & (0.1 * x <= 1))
    np.testing.assert_allclose(gradient(up), expected, rtol=1e-12)
    again = dorefa_activation(torch.tensor(codes * scale / 0.1), bits)
    assert np.array_equal(again.codes.numpy(), codes)
