"""Every quantizer equals an oracle written from the formulas alone: codes, scales, and gradients in and out of the clip.

The oracle is NumPy in float64 and calls nothing of the code. Values within 1e-9 of a rounding tie are left out,
because there two correct programs may differ.
"""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import pytest
import torch
from hypothesis import assume, given, settings, strategies as st
from hypothesis.extra.numpy import array_shapes, arrays

from models.layers import functional as F, quantizers as q

many = settings(max_examples=200, deadline=None)
EDGES = (0.0, -0.0, 0.5, -0.5, 1.0, -1.0, 5.0, 10.0, -10.0, 1e-300, 1e300)
inputs = arrays(np.float64, array_shapes(max_dims=4, max_side=4),
                elements=st.floats(-15, 15) | st.floats(-1.5, 1.5) | st.sampled_from(EDGES))  # fmt: skip


@st.composite
def weights(draw: st.DrawFn) -> np.ndarray:
    """(out, in / groups, k, k): mostly inside [-1, 1], or mostly outside; some filters all zero."""
    shape = tuple(draw(st.tuples(st.integers(1, 4), st.integers(1, 4), st.integers(1, 3), st.integers(1, 3))))
    random = np.random.default_rng(draw(st.integers(0, 2**32 - 1)))
    weight = random.normal(0, draw(st.sampled_from([1e-6, 0.05, 0.5, 2.0])), shape)
    weight[random.random(len(weight)) < 0.1] = 0
    return weight


def quantized(function: Callable, x: np.ndarray) -> tuple[np.ndarray, np.ndarray | None, Callable]:
    """Codes, scale, and the gradient of x as a function of those of the codes and of the scale."""
    tensor = torch.tensor(x, requires_grad=True)
    result = function(tensor)
    codes, scale = result if isinstance(result, tuple) else (result, None)
    assert codes.dtype == torch.float64
    assert codes.shape == tensor.shape
    assert (codes == codes.round()).all()

    def gradient(to_codes: np.ndarray, to_scale: np.ndarray | float = 0.0) -> np.ndarray:
        total = (codes * torch.tensor(to_codes)).sum()
        if scale is not None and scale.requires_grad:
            total = total + (scale * torch.tensor(to_scale)).sum()
        (found,) = torch.autograd.grad(total, tensor)
        assert np.array_equal(tensor.detach().numpy(), x)  # neither pass edits the argument
        return found.numpy()

    return codes.detach().numpy(), None if scale is None else scale.detach().numpy(), gradient


def upstream(*shape: int) -> np.ndarray:
    return np.random.default_rng(len(shape)).normal(size=shape)


def off_tie(x: np.ndarray) -> np.ndarray:
    return np.abs(x - np.floor(x) - 0.5) > 1e-9


def pseudo(x: np.ndarray, kind: str) -> np.ndarray:
    """design.md: identity / cut outside [-1, 1] / max(0, 1 - |x|)."""
    return {
        "ste": np.ones_like(x),
        "saturate": np.where(np.abs(x) <= 1, 1.0, 0.0),
        "soft": np.maximum(0, 1 - np.abs(x)),
    }[kind]


@pytest.mark.parametrize("bits", range(2, 9))
@many
@given(weight=weights())
def test_dorefa_weight(bits: int, weight: np.ndarray) -> None:
    levels, squashed = 2**bits - 1, np.tanh(weight)
    peak = np.abs(squashed).max() or 1.0  # all-zero weights: t = 1/2
    steps = (squashed / (2 * peak) + 0.5) * levels
    codes, scale, gradient = quantized(lambda w: F.dorefa_weight(w, bits), weight)
    clear = off_tie(steps)
    assert np.array_equal(codes[clear], 2 * np.rint(steps)[clear] - levels)
    assert ((codes % 2 == 1) & (abs(codes) <= levels)).all()
    assert scale == 1 / levels
    up = upstream(*weight.shape)
    expected = up * 2 * levels * (1 - squashed**2) / (2 * peak)  # the maximum is a constant
    np.testing.assert_allclose(gradient(up), expected, rtol=1e-9)


@pytest.mark.parametrize("bits", range(2, 9))
@many
@given(x=inputs)
def test_dorefa_activation(bits: int, x: np.ndarray) -> None:
    levels = 2**bits - 1
    steps = np.minimum(np.maximum(0.1 * x, 0), 1) * levels
    codes, scale, gradient = quantized(lambda t: F.dorefa_activation(t, bits), x)
    clear = off_tie(steps)
    assert np.array_equal(codes[clear], np.rint(steps)[clear])
    assert (codes >= 0).all()
    assert (codes <= levels).all()
    assert scale == 1 / levels
    up = upstream(*x.shape)
    expected = up * 0.1 * levels * ((0.1 * x >= 0) & (0.1 * x <= 1))
    np.testing.assert_allclose(gradient(up), expected, rtol=1e-12)
    again = F.dorefa_activation(torch.tensor(codes * scale / 0.1), bits)
    assert np.array_equal(again.codes.numpy(), codes)


@pytest.mark.parametrize("scaled", [True, False])
@pytest.mark.parametrize("kind", ["ste", "saturate"])
@many
@given(weight=weights())
def test_binary_weight(kind: str, scaled: bool, weight: np.ndarray) -> None:
    alone = weight.shape[1] == 1  # centring would leave nothing
    middle = weight if alone else weight - weight.sum(1, keepdims=True) / weight.shape[1]
    live = np.abs(weight).max((1, 2, 3)) > 0
    assume((np.abs(middle[live]) > 1e-9).all())
    codes, scale, gradient = quantized(lambda w: F.binary_weight(w, scaled, kind), weight)
    assert np.array_equal(codes, np.where(middle >= 0, 1, -1))
    up, size = upstream(*weight.shape), middle[0].size
    expected = up * pseudo(middle, kind)
    to_scale = upstream(len(weight), 1, 1, 1)
    if scaled:
        np.testing.assert_allclose(scale, np.minimum(abs(middle), 1).mean((1, 2, 3), keepdims=True), rtol=1e-12)
        expected = expected + to_scale * np.sign(middle) * (np.abs(middle) <= 1) / size
    else:
        assert scale is None
    if not alone:  # centring takes the mean of the gradient away, too
        expected = expected - expected.mean(1, keepdims=True)
    np.testing.assert_allclose(gradient(up, to_scale), expected, rtol=1e-9, atol=1e-12)


@pytest.mark.parametrize("scaled", [True, False])
@pytest.mark.parametrize("kind", ["ste", "saturate"])
@pytest.mark.parametrize("gap", [True, False])
@many
@given(weight=weights(), data=st.data())
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
    codes, scale, gradient = quantized(lambda w: F.ternary_weight(w, scaled, kind, held), weight)
    assert np.array_equal(codes, np.where(nonzero, np.sign(weight), 0))
    up, to_scale = upstream(*weight.shape), upstream(len(weight), 1, 1, 1)
    expected = up * pseudo(weight, kind)
    if not scaled:
        assert scale is None
    else:
        count = np.maximum(nonzero.sum((1, 2, 3), keepdims=True), 1)  # all-zero filter: codes 0, scale 0
        np.testing.assert_allclose(scale, (size * nonzero).sum((1, 2, 3), keepdims=True) / count, rtol=1e-12)
        expected = expected + to_scale * np.sign(weight) * nonzero / count
        again = F.ternary_weight(torch.tensor(codes * scale))
        assert np.array_equal(again.codes.numpy(), codes)
        np.testing.assert_allclose(again.scale, scale, rtol=1e-12)
    np.testing.assert_allclose(gradient(up, to_scale), expected, rtol=1e-9, atol=1e-12)


@pytest.mark.parametrize("kind", ["ste", "saturate", "soft"])
@many
@given(x=inputs)
def test_binary_and_ternary_activations(kind: str, x: np.ndarray) -> None:
    up = upstream(*x.shape)
    codes, _, gradient = quantized(lambda t: F.sign_ste(t, kind), x)
    assert np.array_equal(codes, np.where(x >= 0, 1, -1))
    np.testing.assert_allclose(gradient(up), up * pseudo(x, kind), rtol=1e-12)
    assert torch.equal(F.sign_ste(torch.tensor(codes), kind), torch.tensor(codes))

    codes, _, gradient = quantized(lambda t: F.ternary_activation(t, kind), x)
    assert np.array_equal(codes, (x > 0.5).astype(float) - (x < -0.5))
    triangle = np.maximum(0, 1 - 2 * np.abs(np.abs(x) - 0.5))  # around each threshold
    np.testing.assert_allclose(gradient(up), up * (triangle if kind == "soft" else pseudo(x, kind)), rtol=1e-12)
    assert torch.equal(F.ternary_activation(torch.tensor(codes), kind), torch.tensor(codes))


def test_zeros() -> None:
    zero = torch.zeros(2, 3, 3, 3, dtype=torch.float64)
    for bits in (2, 3, 4, 8):
        levels = 2**bits - 1  # t * levels ends in .5: half to even
        assert (F.dorefa_weight(zero, bits).codes == 2 * np.rint(levels / 2) - levels).all()
    binary, ternary = F.binary_weight(zero), F.ternary_weight(zero)
    assert (binary.codes == 1).all()
    assert (binary.scale == 0).all()
    assert (ternary.codes == 0).all()
    assert (ternary.scale == 0).all()
    assert F.sign(torch.tensor([0.0, -0.0])).tolist() == [1.0, 1.0]


def test_on_the_edges_of_a_clip_there_is_a_gradient() -> None:
    """torch.clamp's differs there between versions."""
    x = torch.tensor([0.0, 10.0], requires_grad=True)
    F.dorefa_activation(x, 2).codes.sum().backward()
    torch.testing.assert_close(x.grad, torch.tensor([0.3, 0.3]))
    weight = torch.tensor([1.0, -1.0, 0.5, -2.0]).reshape(1, 1, 2, 2).requires_grad_()
    F.binary_weight(weight).scale.sum().backward()
    assert weight.grad.flatten().tolist() == [0.25, -0.25, 0.25, 0]


def test_32_bits_are_the_identity_and_unknown_estimators_are_refused() -> None:
    x = torch.randn(3, requires_grad=True)
    codes, scale = q.Identity()(x)
    assert codes is x
    assert scale is None
    with pytest.raises(ValueError, match="unknown straight-through"):
        F.slope(x, "magic")
