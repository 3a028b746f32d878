"""Affine (INT8 and narrower) quantization equals an oracle written from arXiv 1712.05877; ranges move as documented.

The oracle is NumPy in float64: r = S (q - Z), with an integer Z among the codes q, so that the real 0 is exact.
Values within 1e-9 of a rounding tie are left out, because two correct programs may differ there.
"""

from __future__ import annotations

import numpy as np
import pytest
import torch
from hypothesis import strategies as st
from hypothesis.extra.numpy import array_shapes, arrays

from models.layers.quantizers.affine import AffineActivation, AffineWeight, affine, affine_range, affine_weight
from models.layers.quantizers.base import Quantized
from tests.tools.draws import drawn

BITS = range(2, 9)
FORMS = pytest.mark.parametrize("symmetric", [True, False], ids=["symmetric", "asymmetric"])
values = st.floats(-20, 20) | st.floats(-1e-3, 1e-3) | st.sampled_from([0.0, -0.0, 1.0, -1.0, 1e-30, 1e9])
values = values.map(lambda v: round(v, 30))  # so that no quotient overflows
inputs = arrays(np.float64, array_shapes(max_dims=4, max_side=4), elements=values)


@st.composite
def weights(draw: st.DrawFn) -> np.ndarray:
    """Draw weights (out, in / groups, k, k) of any size and offset; some filters all zero, of one value or of one sign."""
    shape = tuple(draw(st.tuples(st.integers(1, 4), st.integers(1, 4), st.integers(1, 3), st.integers(1, 3))))
    random = np.random.default_rng(draw(st.integers(0, 2**32 - 1)))
    weight = random.normal(draw(st.sampled_from([0, 0, 3, -3])), 1, shape) * draw(st.sampled_from([1e-6, 0.05, 2.0]))
    weight[random.random(len(weight)) < 0.1] = 0
    weight[random.random(len(weight)) < 0.1] = draw(st.sampled_from([-0.25, 1.0]))
    return weight


def oracle_grid(low: float, high: float, bits: int, symmetric: bool) -> tuple[float, int, int, int]:
    """Return scale S, zero point Z, and the lowest and highest q of a range that is widened to contain 0."""
    low, high = min(low, 0.0), max(high, 0.0)
    q_low, q_high = (1 - 2 ** (bits - 1), 2 ** (bits - 1) - 1) if symmetric else (0, 2**bits - 1)
    width = 2 * max(-low, high) if symmetric else high - low
    scale = width / (q_high - q_low)
    if scale <= np.finfo(np.float64).tiny:  # all zeros
        scale = 1.0
    return scale, 0 if symmetric else int(np.rint(-low / scale)), q_low, q_high


def check(
    x: np.ndarray, low: float, high: float, bits: int, symmetric: bool, found: Quantized, grad: np.ndarray
) -> None:
    """Compare codes, scale, and the gradient of the sum of the values with the oracle on [low, high]."""
    scale, zero, q_low, q_high = oracle_grid(low, high, bits, symmetric)
    codes = found.codes.detach().numpy()
    np.testing.assert_allclose(float(found.scale), scale, rtol=1e-12)
    steps = x / scale
    q = np.clip(np.rint(steps) + zero, q_low, q_high)
    clear = (np.abs(steps - np.floor(steps) - 0.5) > 1e-9) | (np.abs(steps) > 1000)  # beyond every code
    assert np.array_equal(codes[clear], (q - zero)[clear])
    assert (codes == np.rint(codes)).all()
    assert ((codes + zero >= q_low) & (codes + zero <= q_high)).all()
    assert (codes[x == 0] == 0).all()  # the real 0 is on the grid
    inside = q == np.rint(steps) + zero
    np.testing.assert_allclose(grad[clear], np.where(inside, 1.0, 0.0)[clear], rtol=1e-12)
    if low <= x.min() and x.max() <= high:  # only the rounded zero point clips
        assert (np.abs(codes * scale - x) <= (0.5 if symmetric else 1) * scale * (1 + 1e-9)).all()


@FORMS
@pytest.mark.parametrize("bits", BITS)
@drawn(x=inputs, edges=st.tuples(values, values))
def test_values_on_a_given_range(bits: int, symmetric: bool, x: np.ndarray, edges: tuple[float, float]) -> None:
    low, high = min(edges), max(edges)
    scale, zero = affine_range(*torch.tensor([low, high], dtype=torch.float64), bits, symmetric)
    _, expected, q_low, q_high = oracle_grid(low, high, bits, symmetric)
    assert int(zero) == zero == expected
    assert q_low <= zero <= q_high
    tensor = torch.tensor(x, requires_grad=True)
    found = affine(tensor, scale, zero, bits, symmetric)
    (found.codes * found.scale).sum().backward()
    check(x, low, high, bits, symmetric, found, tensor.grad.numpy())
    assert np.array_equal(tensor.detach().numpy(), x)
    again = affine(found.codes.detach() * scale, scale, zero, bits, symmetric)
    assert torch.equal(again.codes, found.codes)


@FORMS
@pytest.mark.parametrize("per_channel", [True, False])
@drawn(weight=weights(), bits=st.sampled_from(BITS))
def test_weights_on_their_own_range(per_channel: bool, symmetric: bool, weight: np.ndarray, bits: int) -> None:
    tensor = torch.tensor(weight, requires_grad=True)
    codes, scale = affine_weight(tensor, bits, symmetric, per_channel)
    assert scale.shape == ((len(weight), 1, 1, 1) if per_channel else ())
    (codes * scale).sum().backward()
    for n in range(len(weight)) if per_channel else [...]:
        part = weight[n]
        one = Quantized(codes[n], scale[n] if per_channel else scale)
        check(part, part.min(), part.max(), bits, symmetric, one, tensor.grad[n].numpy())
    assert (codes.detach().numpy()[weight == 0] == 0).all()
    module = AffineWeight(bits, symmetric, per_channel)
    assert torch.equal(module(tensor).codes, codes)
    assert (module.bits, module.scales) == (bits, int(per_channel) * (1 if symmetric else 2))
    assert not module.state_dict()


@FORMS
@pytest.mark.parametrize("per_channel", [True, False])
def test_all_zero_weights(per_channel: bool, symmetric: bool) -> None:
    codes, scale = affine_weight(torch.zeros(3, 2, 1, 1), 8, symmetric, per_channel)
    assert (codes == 0).all()
    assert (scale == 1).all()


def observed(quantizer: AffineActivation) -> tuple[float, float]:
    return quantizer.low.item(), quantizer.high.item()


def batch(low: float, high: float) -> torch.Tensor:
    return torch.linspace(low, high, 24, dtype=torch.float64).reshape(2, 3, 2, 2)


def test_the_range_is_a_moving_average_that_the_first_batch_starts() -> None:
    quantizer = AffineActivation(8, False).double()
    edges = [(-1.0, 2.0), (-3.0, 1.0), (0.5, 4.0), (-2.0, -1.0)]  # the last two do not reach 0
    low = high = None
    for a, b in edges:
        quantizer(batch(a, b))
        a, b = min(a, 0), max(b, 0)
        low, high = (a, b) if low is None else (low + 0.01 * (a - low), high + 0.01 * (b - high))
        np.testing.assert_allclose(observed(quantizer), (low, high), rtol=1e-6)
        assert quantizer.seen == 1


@FORMS
def test_what_it_gives_is_the_grid_of_that_range(symmetric: bool) -> None:
    quantizer, x = AffineActivation(4, symmetric).double(), batch(-1, 3)
    quantizer(x)
    wide = 3 * x
    wide.requires_grad_()
    found = quantizer.eval()(wide)
    (found.codes * found.scale).sum().backward()
    check(wide.detach().numpy(), -1, 3, 4, symmetric, found, wide.grad.numpy())
    assert 0 < wide.grad.sum() < wide.numel()  # some values were clipped
    assert [s.item() for s in quantizer.scale_and_zero()] == [found.scale.item(), oracle_grid(-1, 3, 4, symmetric)[1]]


def test_a_constant_input_is_exact() -> None:
    for value in (0.0, 1.5, -2.5):
        for symmetric in (True, False):
            codes, scale = AffineActivation(8, symmetric).double()(torch.full((2, 3), value, dtype=torch.float64))
            torch.testing.assert_close(
                codes * scale, torch.full((2, 3), value, dtype=torch.float64), rtol=1e-12, atol=0
            )


def test_evaluation_and_freezing_hold_the_range() -> None:
    quantizer = AffineActivation(8, False).double()
    quantizer(batch(-1, 1))
    quantizer.eval()(batch(-9, 9))
    quantizer.train()
    quantizer.frozen = True
    quantizer(batch(-9, 9))
    assert observed(quantizer) == (-1, 1)
    quantizer.frozen = False
    quantizer(batch(-9, 9))
    assert observed(quantizer)[1] > 1
    quantizer.set_range(torch.tensor(-4.0), torch.tensor(0.5))
    assert observed(quantizer) == (-4, 0.5)


@pytest.mark.parametrize(("epochs", "first"), [(1, None), (2, 1), (3, 2), (4, 3), (30, 22)])
def test_the_range_is_frozen_in_the_last_quarter_but_never_in_the_first_epoch(epochs: int, first: int | None) -> None:
    quantizer, frozen = AffineActivation(8, False), []
    for epoch in range(epochs):
        quantizer.on_epoch(epoch, epochs)
        frozen.append(quantizer.frozen)
    assert frozen == [first is not None and epoch >= first for epoch in range(epochs)]


def test_evaluation_without_a_range_leaves_the_input_as_it_is() -> None:
    quantizer, x = AffineActivation(8, False).double().eval(), batch(-1, 3)
    assert quantizer(x) == (x, None)
    assert not quantizer.seen
    quantizer.set_range(torch.tensor(-1.0), torch.tensor(3.0))
    assert quantizer(x).scale > 0


def test_the_range_is_saved() -> None:
    trained, fresh = (AffineActivation(8, False).double() for _ in range(2))
    trained(batch(-1, 2))
    assert set(trained.state_dict()) == {"low", "high", "seen"}
    fresh.load_state_dict(trained.state_dict())
    one, other = (q.eval()(batch(-2, 3)) for q in (trained, fresh))
    assert torch.equal(one.codes, other.codes)
    assert torch.equal(one.scale, other.scale)
    fresh.train()(batch(-5, 5))  # training continues from the range instead of starting anew
    assert observed(fresh)[1] < 2.1
