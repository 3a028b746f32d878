"""Ternary weights and activations equal an oracle; the gap keeps a code between steps, and is saved state."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from hypothesis import assume, strategies as st
from hypothesis.extra.numpy import arrays

from models.layers.quantizers.ternary import TernaryWeight, ternary_activation, ternary_weight
from tests.models.layers.quantizers.oracle import inputs, pseudo, quantized, upstream, weights
from tests.tools.draws import drawn


@pytest.mark.parametrize("scaled", [True, False])
@pytest.mark.parametrize("kind", ["ste", "saturate"])
@pytest.mark.parametrize("gap", [True, False])
@drawn(weight=weights(), data=st.data())
def test_ternary_weight(kind: str, scaled: bool, gap: bool, weight: np.ndarray, data: st.DataObject) -> None:
    size = np.abs(weight)
    threshold = 0.7 * size.mean((1, 2, 3), keepdims=True)
    for edge in (1.0, 0.8):
        assume(((np.abs(size - edge * threshold) > 1e-9 * size) | (size == 0)).all())
    nonzero, previous = size > threshold, None
    if gap:
        previous = data.draw(arrays(np.int8, weight.shape, elements=st.integers(-1, 1)))
        nonzero |= (size > 0.8 * threshold) & (previous * weight > 0)
    held = None if previous is None else torch.tensor(previous)
    codes, scale, gradient = quantized(lambda w: ternary_weight(w, scaled, kind, held), weight)
    assert np.array_equal(codes, np.where(nonzero, np.sign(weight), 0))
    up, to_scale = upstream(*weight.shape), upstream(len(weight), 1, 1, 1)
    expected = up * pseudo(weight, kind)
    if not scaled:
        assert scale is None
    else:
        count = np.maximum(nonzero.sum((1, 2, 3), keepdims=True), 1)  # all-zero filter: codes 0, scale 0
        np.testing.assert_allclose(scale, (size * nonzero).sum((1, 2, 3), keepdims=True) / count, rtol=1e-12)
        expected = expected + to_scale * np.sign(weight) * nonzero / count
        again = ternary_weight(torch.tensor(codes * scale))
        assert np.array_equal(again.codes.numpy(), codes)
        np.testing.assert_allclose(again.scale, scale, rtol=1e-12)
    np.testing.assert_allclose(gradient(up, to_scale), expected, rtol=1e-9, atol=1e-12)


@pytest.mark.parametrize("kind", ["ste", "saturate", "soft"])
@drawn(x=inputs)
def test_ternary_activation(kind: str, x: np.ndarray) -> None:
    up = upstream(*x.shape)
    codes, _, gradient = quantized(lambda t: ternary_activation(t, kind), x)
    assert np.array_equal(codes, (x > 0.5).astype(float) - (x < -0.5))
    triangle = np.maximum(0, 1 - 2 * np.abs(np.abs(x) - 0.5))  # around each threshold
    np.testing.assert_allclose(gradient(up), up * (triangle if kind == "soft" else pseudo(x, kind)), rtol=1e-12)
    assert torch.equal(ternary_activation(torch.tensor(codes), kind), torch.tensor(codes))


def gap_quantizer(shape: tuple[int, ...]) -> TernaryWeight:
    return TernaryWeight(gap=True, shape=torch.Size(shape))


def test_the_gap_holds_a_value_until_it_leaves_the_band() -> None:
    """One weight walks through its band while a large one keeps the threshold near t = 0.7 (|w| + 1) / 2."""
    quantizer = gap_quantizer((1, 2, 1, 1))
    walk = [0.50, 0.60, 0.50, 0.45, 0.40, 0.50, -0.50, -0.60, -0.50, 0.50, 0.60, -0.50]
    codes = []
    for w in walk:
        codes.append(int(quantizer(torch.tensor([w, 1.0]).reshape(1, 2, 1, 1)).codes[0, 0]))
    # 0.50 is in the band (0.42, 0.525], 0.60 above its threshold 0.56, 0.45 in (0.406, 0.5075], 0.40 in (0.392, 0.49]
    assert codes == [0, 1, 1, 1, 1, 1, 0, -1, -1, 0, 1, 0]
    assert int(quantizer(torch.tensor([0.30, 1.0]).reshape(1, 2, 1, 1)).codes[0, 0]) == 0  # below 0.364


def test_the_gap_equals_a_slow_loop_over_random_steps() -> None:
    random = np.random.default_rng(0)
    shape = (3, 4, 2, 2)
    quantizer, weight = gap_quantizer(shape), random.normal(size=shape)
    values, held = np.zeros(shape), 0
    for _ in range(40):
        weight = weight + 0.05 * random.normal(size=shape)
        for place in np.ndindex(shape):
            size, sign = abs(weight[place]), np.sign(weight[place])
            threshold = 0.7 * np.abs(weight[place[0]]).mean()
            if size > threshold:
                values[place] = sign
            elif not (size > 0.8 * threshold and values[place] == sign):
                values[place] = 0
            else:
                held += 1
        codes, scale = quantizer(torch.tensor(weight))
        assert np.array_equal(codes, values)
        means = [np.abs(w)[v != 0].mean() for w, v in zip(weight, values, strict=True)]
        np.testing.assert_allclose(scale.flatten(), means, rtol=1e-12)
    assert held > 50  # otherwise the loop shows nothing


def test_the_state_of_a_gap_is_saved_and_evaluation_leaves_it_alone() -> None:
    torch.manual_seed(0)
    weight = torch.randn(4, 8, 3, 3)
    trained = gap_quantizer(tuple(weight.shape))
    codes = trained(weight).codes
    assert torch.equal(trained.previous, codes.to(torch.int8))

    shrunk = weight * torch.linspace(0.75, 1, weight[0].numel()).reshape(weight[0].shape)
    fresh = gap_quantizer(tuple(weight.shape)).eval()
    assert not torch.equal(fresh(shrunk).codes, trained.eval()(shrunk).codes)  # the past matters,
    fresh.load_state_dict(trained.state_dict())
    assert torch.equal(fresh(shrunk).codes, trained(shrunk).codes)  # and is saved in the file,
    assert torch.equal(trained.previous, codes.to(torch.int8))  # which evaluation does not change
    trained.train()(shrunk)
    assert not torch.equal(trained.previous, codes.to(torch.int8))


def test_without_a_gap_there_is_no_state() -> None:
    assert not TernaryWeight(shape=torch.Size((1, 1, 1, 1))).state_dict()
