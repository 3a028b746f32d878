"""Ranges of activations: each method behaves on known distributions as its name says, and nothing else changes.

Errors and quantiles are computed from the raw values with NumPy; the methods see them through 2,048 bins.
"""

from __future__ import annotations

from itertools import product

import numpy as np
import pytest
import torch
from torch import Tensor, nn

import quant.calibrate
from engine.data.augment import generator
from engine.data.info import DataInfo
from engine.data.splits import TensorSplit
from engine.errors import BAD_CHECKPOINT, BAD_DATA, UserError
from models.layers.quantizers.affine import AffineActivation
from quant.calibrate import BINS, METHODS, Histogram, calibrate
from quant.prepare import prepare
from quant.spec import affine_spec
from tests.tools.networks import ends, form

FORMS = list(product((4, 8), (True, False)))
COUNT = 200_000


def sample(kind: str) -> np.ndarray:
    random = np.random.default_rng(0)
    return {
        "normal": lambda: random.normal(0.3, 1, COUNT),
        "relu": lambda: np.maximum(random.normal(0, 1, COUNT), 0),
        "uniform": lambda: random.uniform(-1, 1, COUNT),
        "positive": lambda: random.uniform(0, 5, COUNT),
        "negative": lambda: -random.exponential(1, COUNT),
        "heavy": lambda: np.append(random.normal(0, 1, COUNT), [60, -60, 55]),
        "heavy_relu": lambda: np.append(np.maximum(random.normal(0, 1, COUNT), 0), [60, 55]),
    }[kind]().astype(np.float32)


KINDS = ("normal", "relu", "uniform", "positive", "negative", "heavy", "heavy_relu")


def clipped(method: str, x: np.ndarray, bits: int = 8, symmetric: bool = True) -> tuple[float, float]:
    """Return the range that a method chooses from a histogram filled in two parts."""
    histogram = Histogram(float(x.min()), float(x.max()))
    for part in np.array_split(x, 2):
        histogram.add(torch.from_numpy(part))
    assert histogram.counts.sum() == len(x)
    return METHODS[method](histogram, bits, symmetric)


def width(x: np.ndarray) -> float:
    """Return the width of a bin."""
    return (max(x.max(), 0) - min(x.min(), 0)) / BINS


def mean_error(x: np.ndarray, low: float, high: float, bits: int, symmetric: bool) -> float:
    """Return the mean squared error of x, rounded to the grid of arXiv 1712.05877 on [low, high] and clipped."""
    low, high = min(low, 0), max(high, 0)
    if symmetric:
        scale, ends = max(-low, high) / (2 ** (bits - 1) - 1), (1 - 2 ** (bits - 1), 2 ** (bits - 1) - 1)
    else:
        scale = (high - low) / (2**bits - 1)
        zero = np.rint(-low / scale)
        ends = (-zero, 2**bits - 1 - zero)
    return float(np.mean((np.clip(np.rint(x / scale), *ends) * scale - x.astype(np.float64)) ** 2))


@pytest.mark.parametrize("kind", KINDS)
def test_minmax_is_the_range_of_the_data_widened_to_0(kind: str) -> None:
    x = sample(kind)
    for bits, symmetric in FORMS:
        assert clipped("minmax", x, bits, symmetric) == (min(x.min(), 0), max(x.max(), 0))


@pytest.mark.parametrize("kind", KINDS)
def test_percentile_is_that_quantile_within_a_bin(kind: str) -> None:
    x = sample(kind)
    bin_width = width(x)
    low, high = clipped("percentile", x, symmetric=True)
    assert low == -high
    assert abs(high - np.quantile(np.abs(x), 0.9999)) <= bin_width
    low, high = clipped("percentile", x, symmetric=False)
    assert abs(low - min(np.quantile(x, 0.0001), 0)) <= bin_width
    assert abs(high - max(np.quantile(x, 0.9999), 0)) <= bin_width


@pytest.mark.parametrize(("bits", "symmetric"), FORMS)
@pytest.mark.parametrize("kind", KINDS)
def test_no_share_of_the_range_has_a_smaller_error_than_that_of_mse(kind: str, bits: int, symmetric: bool) -> None:
    x = sample(kind)
    low, high = min(float(x.min()), 0), max(float(x.max()), 0)
    chosen = mean_error(x, *clipped("mse", x, bits, symmetric), bits, symmetric)
    # a value is known to half a bin, so an error to its square, and to half a bin times the error itself
    slack = width(x) ** 2 + width(x) * chosen**0.5
    for share in (0.01, 0.02, 0.05, *np.arange(0.1, 0.95, 0.1), 1.0):  # 1: minmax
        assert chosen <= mean_error(x, low * share, high * share, bits, symmetric) + slack


@pytest.mark.parametrize(("bits", "symmetric"), list(product((2, 3, 4, 8), (True, False))))
def test_kl_clips_outliers_of_a_heavy_tail_and_nothing_of_a_uniform_one(bits: int, symmetric: bool) -> None:
    for kind in ("heavy", "heavy_relu"):
        x = sample(kind)
        low, high = clipped("kl", x, bits, symmetric)
        assert 1 < high < 10, kind  # two or three of 200,000 values lie beyond 6, at 55 and 60
        assert -10 < low <= 0
        assert np.mean((x < low) | (x > high)) < 0.2
    for kind in ("uniform", "positive"):
        x = sample(kind)
        low, high = clipped("kl", x, bits, symmetric)
        reach = np.abs(x).max() if symmetric else x.max()
        np.testing.assert_allclose(high, reach, rtol=1e-6, err_msg=kind)
        np.testing.assert_allclose(low, -reach if symmetric else min(x.min(), 0), rtol=1e-6, err_msg=kind)
    assert clipped("kl", sample("negative"), bits, False)[1] == 0


def test_zeros_of_a_relu_do_not_draw_kl_towards_them() -> None:
    x = sample("relu")
    more = np.append(x, np.zeros(10 * COUNT, np.float32))
    assert clipped("kl", more, 8, False) == clipped("kl", x, 8, False)


@pytest.mark.parametrize(("low", "expected"), [(0, 256), (-1, 128), (-0.5, 171), (-3, 192)])
def test_kl_judges_signed_values_with_the_levels_that_they_have(
    low: float, expected: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    asked = set[int]()
    monkeypatch.setattr(quant.calibrate, "_divergence", lambda counts, bins, levels: asked.add(levels) or 1.0)
    clipped("kl", np.linspace(low, 1, 1000, dtype=np.float32), 8, False)
    assert asked == {expected}  # 256 levels from low to 1: so many of them are on the wider side


def test_more_values_than_a_float32_can_count(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(quant.calibrate, "CHUNK", 1000)
    histc, sizes = torch.histc, list[int]()
    monkeypatch.setattr(torch, "histc", lambda x, *more: (sizes.append(x.numel()), histc(x, *more))[1])
    histogram = Histogram(0, 1)
    histogram.counts[0] = 2**24  # float32 would lose one more
    histogram.add(torch.zeros(2, 1250))
    assert histogram.counts[0] == 2**24 + 2500
    assert sizes == [1000, 1000, 500]


@pytest.mark.parametrize("method", METHODS)
def test_an_input_of_one_value_has_a_range(method: str) -> None:
    for value, symmetric in product((0.0, 2.0, -3.0), (True, False)):
        low, high = clipped(method, np.full(100, value, np.float32), 8, symmetric)
        assert low <= 0 <= high
        assert low < high
        assert np.isfinite([low, high]).all()


INFO = DataInfo("digits", "noise", 10, 8, (0.5,) * 3, (0.25,) * 3)


def split(count: int = 40) -> TensorSplit:
    draws = torch.Generator().manual_seed(0)
    images = torch.randint(0, 256, (count, 8, 8, 3), dtype=torch.uint8, generator=draws)
    return TensorSplit(images, torch.arange(count) % 10, INFO, torch.device("cpu"))


def prepared(bn_fold: bool = False, a_bits: int = 8, q_type: int = 1) -> nn.Module:
    torch.manual_seed(0)
    model = form("nin", [8] * 8)
    return prepare(model, affine_spec(8, a_bits, q_type, bn_fold).at_ends(*ends(model)))


def quantizers(model: nn.Module) -> dict[str, AffineActivation]:
    return {name: m for name, m in model.named_modules() if isinstance(m, AffineActivation)}


def float_inputs(pictures: int) -> dict[str, Tensor]:
    """Return the input of each quantizer when none of them rounds."""
    seen: dict[str, Tensor] = {}
    whole = prepared(a_bits=32).eval()
    for name in (f"block{number}.conv" for number in range(2, 10)):
        whole.get_submodule(name).register_forward_pre_hook(
            lambda _, inputs, key=f"{name}.input_quantizer": seen.update({key: inputs[0].detach()})
        )
    order = torch.randperm(40, generator=generator(1, 0))[:pictures]  # as seed 1 draws them
    whole(next(split().batches(pictures, order))[0])
    return seen


@pytest.mark.parametrize(("method", "bn_fold"), list(product(METHODS, (False, True))))
def test_calibration_sets_every_range_and_moves_nothing_else(method: str, bn_fold: bool) -> None:
    model = prepared(bn_fold).train()
    before = {k: v.clone() for k, v in model.state_dict().items()}
    calibrate(model, split(), method, 30, batch=7)
    assert model.training
    moved = {k for k, v in model.state_dict().items() if not torch.equal(v, before[k])}
    assert len(quantizers(model)) == 8
    for name, quantizer in quantizers(model).items():
        assert quantizer.seen == 1
        assert quantizer.low <= 0 < quantizer.high
        assert f"{name}.high" in moved
    assert {key.rpartition(".")[2] for key in moved} <= {"low", "high", "seen"}
    codes = model.eval().block2.conv.input_quantizer(torch.randn(4)).codes
    assert torch.equal(codes, codes.round())  # and the quantizers round again


@pytest.mark.parametrize("pictures", [1, 30, 40])
def test_minmax_is_the_range_of_the_drawn_pictures_before_any_rounding(pictures: int) -> None:
    model, expected = prepared(a_bits=2), float_inputs(pictures)
    calibrate(model, split(), "minmax", pictures, batch=7)
    for name, quantizer in quantizers(model).items():
        torch.testing.assert_close(quantizer.low, expected[name].min().clamp_max(0))
        torch.testing.assert_close(quantizer.high, expected[name].max().clamp_min(0))


@pytest.mark.parametrize("bn_fold", [False, True])
def test_float64_networks_are_calibrated_in_float64(bn_fold: bool) -> None:
    single, double = prepared(bn_fold), prepared(bn_fold).double()
    for model in (single, double):
        calibrate(model, split(), "percentile", 40)
    for name, quantizer in quantizers(double).items():
        assert quantizer.high.dtype == torch.float64
        torch.testing.assert_close(quantizer.high.float(), quantizers(single)[name].high, rtol=2e-3, atol=0)


def test_pictures_are_drawn_from_every_class_of_an_ordered_set() -> None:
    part, seen = split(400), list[Tensor]()
    part.labels = torch.arange(400) // 40  # sorted by class, as folders are read
    whole = part.batches
    part.batches = lambda size, order=None: (seen.append(part.labels[order]), whole(size, order))[1]
    calibrate(prepared(), part, "minmax", 100)
    assert len(seen[0]) == 100
    assert set(seen[0].tolist()) == set(range(10))


def test_each_form_is_set_as_its_own_bits_and_symmetry_ask() -> None:
    for q_type, bits in product((0, 1), (4, 8)):
        model = prepared(a_bits=bits, q_type=q_type)
        calibrate(model, split(), "percentile", 40)
        for quantizer in quantizers(model).values():
            assert quantizer.low == (-quantizer.high if q_type == 0 else 0)


@pytest.mark.parametrize("negative", [(), ("block4.conv",)])
def test_what_may_be_negative_is_clipped_by_mse_where_kl_is_asked_for(
    negative: tuple[str, ...], capsys: pytest.CaptureFixture
) -> None:
    found = {}
    for method in ("kl", "mse", "minmax"):
        model = prepared(a_bits=4)
        calibrate(model, split(), method, 40, negative=negative)
        found[method] = {name: q.high.item() for name, q in quantizers(model).items()}
    alike = {name.removesuffix(".input_quantizer") for name in found["kl"] if found["kl"][name] == found["mse"][name]}
    assert alike == set(negative)
    assert capsys.readouterr().err == "".join(
        f"notice: inputs without a ReLU before them are clipped by mse: {s}\n" for s in negative
    )


@pytest.mark.parametrize("value", [float("nan"), float("inf"), 1e38])
def test_activations_that_overflow_are_named(value: float) -> None:
    model = prepared()
    with torch.no_grad():
        model.block3.bn.weight[2] = value
        model.block3.bn.bias[2] = value
    with pytest.raises(UserError, match=r"not finite at block[45]\.conv$") as fault:
        calibrate(model, split(), "mse", 40)
    assert fault.value.code == BAD_CHECKPOINT


def test_calibration_without_pictures_is_refused() -> None:
    for part, pictures in ((split(0), 8), (split(), 0)):
        with pytest.raises(UserError, match="at least one picture") as fault:
            calibrate(prepared(), part, "mse", pictures)
        assert fault.value.code == BAD_DATA
