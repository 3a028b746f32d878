"""Promises of every quantizer for every weight: few levels, order, symmetry, small errors, any layout and type.

The formulas themselves are compared with their papers in tests/models/layers.
"""

from __future__ import annotations

from math import log10

import pytest
import torch
from hypothesis import assume, strategies as st
from torch import Tensor

from models.layers.quantizers.base import Quantized
from models.layers.quantizers.binary import binary_weight, centred
from tests.tools.draws import drawn
from tests.tools.quantizer_cases import ACTIVATIONS, CASES, named, value

DEVICES = ["cpu", *(["cuda"] if torch.cuda.is_available() else [])]
FAMILIES = ("dorefa", "ternary", "binary", "affine")
every = pytest.mark.parametrize("name", CASES)
each = pytest.mark.parametrize("name", ACTIVATIONS)


@st.composite
def weights(draw: st.DrawFn) -> Tensor:
    """Draw float32 weights (out, in / groups, k, k) of any size, some filters all zero, of one value or of one sign."""
    shape = draw(st.tuples(st.integers(1, 4), st.integers(1, 4), st.integers(1, 3), st.integers(1, 3)))
    source = torch.Generator().manual_seed(draw(st.integers(0, 2**32 - 1)))
    weight = torch.randn(shape, generator=source) * draw(st.sampled_from([1e-6, 0.05, 0.5, 3.0]))
    weight[torch.rand(len(weight), generator=source) < 0.1] = 0
    weight[torch.rand(len(weight), generator=source) < 0.1] = draw(st.sampled_from([-0.25, 1.0]))
    return weight.abs() if draw(st.integers(0, 9)) == 0 else weight


def any_of(*words: str) -> st.SearchStrategy[str]:
    return st.sampled_from(named(*words))


# -- properties: G4 -----------------------------------------------------------------------------------------------------


def assert_same(found: Quantized, expected: Quantized) -> None:
    """Check that codes and scales are equal bit for bit."""
    assert torch.equal(found.codes, expected.codes)
    assert (found.scale is None) == (expected.scale is None)
    assert found.scale is None or torch.equal(found.scale, expected.scale)


@pytest.mark.parametrize("family", FAMILIES)
@drawn(data=st.data(), weight=weights())
def test_few_levels(family: str, data: st.DataObject, weight: Tensor) -> None:
    case = CASES[data.draw(any_of(family))]
    codes = case.quantize(weight).codes
    assert max(len(part.unique()) for part in (codes if case.own else [codes])) <= case.levels
    assert codes.max() - codes.min() <= (2 * case.levels if family == "affine" else 2 * (case.levels - 1))


@pytest.mark.parametrize("words", [("dorefa",), ("ternary",), ("binary",), ("affine", "symmetric")], ids=" ".join)
@drawn(data=st.data(), weight=weights())
def test_odd_symmetric(words: tuple[str, ...], data: st.DataObject, weight: Tensor) -> None:
    """f(-w) = -f(w), except for a 0 that must take a side, and for DoReFa's ties, which round to the even step."""
    name = data.draw(any_of(*words))
    plus, minus = CASES[name].quantize(weight), CASES[name].quantize(-weight)
    clear = torch.ones_like(weight, dtype=torch.bool)
    if words == ("dorefa",):
        levels = CASES[name].levels - 1
        squashed = weight.double().tanh()
        steps = (squashed / (2 * squashed.abs().max().clamp_min(1e-300)) + 0.5) * levels
        clear = (steps - steps.floor() - 0.5).abs() > 1e-4
    if words == ("binary",):
        clear = centred(weight) != 0
    assert torch.equal(plus.codes[clear], -minus.codes[clear])
    assert plus.scale is None or torch.equal(plus.scale, minus.scale)


@pytest.mark.parametrize("family", FAMILIES)
@drawn(data=st.data(), weight=weights())
def test_monotone(family: str, data: st.DataObject, weight: Tensor) -> None:
    """A larger weight never has a smaller code; binary: a larger centred weight."""
    case = CASES[data.draw(any_of(family))]
    raw = centred(weight) if family == "binary" else weight
    for sizes, codes in (
        zip(raw, case.quantize(weight).codes, strict=True) if case.own else [(raw, case.quantize(weight).codes)]
    ):
        ordered = codes.flatten()[sizes.flatten().argsort()]
        assert (ordered.diff() >= 0).all()


@each
def test_activations_are_monotone(name: str) -> None:
    x = torch.linspace(-15, 15, 3001)
    quantizer = ACTIVATIONS[name]()
    quantizer(torch.linspace(-2, 7, 5))
    codes = quantizer.eval()(x).codes
    assert (codes.diff() >= 0).all()
    assert len(codes.unique()) > 1


@pytest.mark.parametrize("family", ["dorefa", "affine"])
@drawn(data=st.data(), weight=weights())
def test_no_error_is_larger_than_half_a_step_inside_the_range(family: str, data: st.DataObject, weight: Tensor) -> None:
    name, weight = data.draw(any_of(family)), weight.double()
    codes, scale = CASES[name].quantize(weight)
    if family == "dorefa":
        squashed = weight.tanh()
        target = squashed / squashed.abs().max() if squashed.any() else squashed
        assert ((codes * scale - target).abs() <= scale * (1 + 1e-9)).all()  # codes are odd: a step is 2 of them
        return
    found = codes * scale
    assert ((found - weight).abs() <= scale * (1 + 1e-9)).all()  # a rounded zero point clips half a step
    low, high = found.amin(), found.amax()
    if CASES[name].own:
        low, high = (edge(found.flatten(1), 1).reshape(-1, 1, 1, 1) for edge in (torch.amin, torch.amax))
    inside = (weight >= low) & (weight <= high)
    assume(inside.any())  # a single weight may be rounded to another grid point
    assert ((found - weight).abs() <= 0.5 * scale * (1 + 1e-9))[inside].all()


@pytest.mark.parametrize(
    "words", [("ternary",), ("affine", "symmetric", "channel"), ("affine", "symmetric", "tensor")], ids=" ".join
)
@drawn(data=st.data(), weight=weights())
def test_idempotent(words: tuple[str, ...], data: st.DataObject, weight: Tensor) -> None:
    """Quantizing twice changes no code; promised where the range is unchanged."""
    quantize = CASES[data.draw(any_of(*words))].quantize
    once = quantize(weight.double())
    again = quantize(value(once))
    assert torch.equal(again.codes, once.codes)
    if once.scale is not None:
        torch.testing.assert_close(again.scale, once.scale, rtol=1e-12, atol=0)


@drawn(weight=weights())
def test_binary_weights_of_one_input_channel_are_idempotent(weight: Tensor) -> None:
    once = binary_weight(weight[:, :1].double())
    torch.testing.assert_close(value(binary_weight(value(once))), value(once), rtol=1e-12, atol=0)


def eighths(*shape: int) -> Tensor:
    """Return multiples of 1/64 below 2, whose sums are exact in any order."""
    return torch.randint(-127, 128, shape, generator=torch.Generator().manual_seed(3)) / 64


@every
@pytest.mark.parametrize("device", DEVICES)
def test_type_device_and_memory_layout_do_not_matter_and_stay(name: str, device: str) -> None:
    weight = eighths(6, 8, 3, 3).to(device)
    expected = CASES[name].quantize(weight)
    wide = torch.zeros(6, 16, 3, 6, device=device)
    wide[:, ::2, :, ::2] = weight
    for other in (
        weight.contiguous(memory_format=torch.channels_last),
        wide[:, ::2, :, ::2],
        weight.permute(3, 2, 1, 0).contiguous().permute(3, 2, 1, 0),
    ):
        assert not other.is_contiguous()
        assert_same(CASES[name].quantize(other), expected)
    for dtype in (torch.float32, torch.float64):
        found = CASES[name].quantize(weight.to(dtype))
        assert {t.dtype for t in found if t is not None} == {dtype}
        assert {t.device.type for t in found if t is not None} == {device}


@each
@pytest.mark.parametrize("device", DEVICES)
def test_activations_of_any_layout_type_and_batch_order(name: str, device: str) -> None:
    """Reordered pictures give the same codes in the new order, also while a range is observed."""
    x = 4 * torch.randn(5, 6, 4, 4, generator=torch.Generator().manual_seed(4)).to(device)
    order = torch.tensor([3, 0, 4, 1, 2], device=device)
    expected = ACTIVATIONS[name]().to(device)(x)
    assert_same(ACTIVATIONS[name]().to(device)(x.contiguous(memory_format=torch.channels_last)), expected)
    assert_same(ACTIVATIONS[name]().to(device)(x[order]), Quantized(expected.codes[order], expected.scale))
    for dtype in (torch.float32, torch.float64):
        found = ACTIVATIONS[name]().to(device, dtype)(x.to(dtype))
        assert {t.dtype for t in found if t is not None} == {dtype}
        assert {t.device.type for t in found if t is not None} == {device}


@every
def test_filters_in_another_order(name: str) -> None:
    weight, order = eighths(6, 8, 3, 3), torch.tensor([5, 0, 3, 1, 4, 2])
    codes, scale = CASES[name].quantize(weight)
    if scale is not None and scale.ndim:
        scale = scale[order]
    assert_same(CASES[name].quantize(weight[order]), Quantized(codes[order], scale))


# -- signal to noise: G6 ------------------------------------------------------------------------------------------------

FLOORS = {
    **dict(zip(named("dorefa"), (0.4, 8.3, 14.9, 21.2, 27.4, 33.5, 39.6), strict=True)),
    **dict(zip(named("affine", "channel", "symmetric"), (0.8, 9.1, 16.5, 23.1, 29.4, 35.6, 41.6), strict=True)),
    **dict(zip(named("affine", "channel", "asymmetric"), (3.7, 11.0, 17.6, 23.8, 30.0, 36.1, 42.2), strict=True)),
    **dict(zip(named("affine", "tensor", "symmetric"), (0.0, 6.8, 14.2, 20.8, 27.1, 33.3, 39.4), strict=True)),
    **dict(zip(named("affine", "tensor", "asymmetric"), (1.7, 8.5, 15.1, 21.4, 27.6, 33.7, 39.7), strict=True)),
    "ternary": 6.8,
    "binary": 4.0,
}


def decibels(signal: Tensor, found: Tensor) -> float:
    return 10 * log10(float(signal.square().sum() / (signal - found).square().sum()))


@pytest.mark.parametrize("name", FLOORS)
def test_signal_to_noise_of_gaussian_weights(name: str) -> None:
    """Measured on 64 filters of 128 x 3 x 3, less 0.3 dB. DoReFa is judged on what it rounds, tanh(w) / max|tanh w|."""
    weight = 0.05 * torch.randn(64, 128, 3, 3, generator=torch.Generator().manual_seed(5), dtype=torch.float64)
    signal = weight.tanh() / weight.tanh().abs().max() if name.startswith("dorefa") else weight
    assert decibels(signal, value(CASES[name].quantize(weight))) >= FLOORS[name]
