"""Elementwise functions: within the promised error, equal to values by hand, and the same bits at any position."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator
from decimal import Decimal, localcontext

import numpy as np
import pytest
import torch
from torch import Tensor
from torch.nn import functional as F

from deploy.operations.functions import SETTINGS
from deploy.reference.functions import EXACT, WIDE, erf, exp, function, log, log_finite, power
from deploy.reference.run import subnormals

INF = math.inf
TOLD = {"clamp": (-1.5, 2.25), "elu": (0.75,), "leaky_relu": (0.125,)}
TORCH: dict[str, Callable[[Tensor], Tensor]] = {
    "abs": torch.abs, "clamp": lambda x: x.clamp(*TOLD["clamp"]), "elu": lambda x: F.elu(x, *TOLD["elu"]),
    "exp": torch.exp, "gelu": F.gelu, "gelu_tanh": lambda x: F.gelu(x, approximate="tanh"),
    "hardsigmoid": F.hardsigmoid, "hardswish": F.hardswish, "leaky_relu": lambda x: F.leaky_relu(x, *TOLD["leaky_relu"]),
    "mish": F.mish, "relu": torch.relu, "sigmoid": torch.sigmoid, "silu": F.silu, "sqrt": torch.sqrt, "tanh": torch.tanh,
    "ceil": torch.ceil, "erf": torch.erf, "expm1": torch.expm1, "floor": torch.floor, "log": torch.log, "log1p": torch.log1p,
    "round": torch.round, "sign": torch.sign,
}  # fmt: skip


@pytest.fixture
def _flushed() -> Iterator[None]:
    """Let the CPU flush subnormal numbers to 0, as programs may do for speed."""
    if not torch.set_flush_denormal(True):
        pytest.skip("this CPU does not flush subnormal numbers")
    yield
    torch.set_flush_denormal(False)


def numbers(kind: str) -> Tensor:
    """Return fp32 inputs of a function, dense around 0 and far beyond."""
    draws = torch.randn(500, generator=torch.Generator().manual_seed(0))
    ends = torch.tensor([0.0, -0.0, 80.0, -80.0, 1e-30, -1e-30])
    x = torch.cat([torch.linspace(-20, 20, 2001), draws, ends])
    return within(kind, x[x != 0] if kind == "log" else x)


def within(kind: str, x: Tensor) -> Tensor:
    """Return the numbers of a sample for which a function is a number."""
    return x.abs() if kind in ("sqrt", "log", "log1p") else x


def bits(x: Tensor) -> list[int]:
    return x.flatten().view(torch.int64 if x.dtype == torch.float64 else torch.int32).tolist()


def alone(kind: str, x: Tensor) -> Tensor:
    """Apply the function to each number in a tensor of its own."""
    return torch.cat([function(kind, number[None], TOLD.get(kind, ())) for number in x])


def test_every_function_of_programs_is_compared_with_torch() -> None:
    assert {*WIDE, *EXACT, "relu", "clamp", "leaky_relu"} == {*TORCH}
    assert {kind: len(told) for kind, told in TOLD.items()} == SETTINGS


@pytest.mark.parametrize("most", [1e-6, 1.0, 30.0, 700.0])
def test_exp_is_right_to_fifteen_digits(most: float) -> None:
    x = np.random.default_rng(0).uniform(-most, most, 1000)
    x = np.concatenate([x, [most, -most], np.arange(-20, 21) * math.log(2) / 2 % most])
    with localcontext() as context:
        context.prec = 40
        for given, found in zip(x.tolist(), exp(torch.from_numpy(x)).tolist(), strict=True):
            exact = Decimal(given).exp()
            assert abs(Decimal(found) - exact) <= exact * Decimal("1e-15"), given


def test_exp_of_0_is_1_and_beyond_700_it_stands_still() -> None:
    found = exp(torch.tensor([0.0, -0.0, 700.0, 701.0, 1e300, INF, -700.0, -701.0, -INF], dtype=torch.float64)).tolist()
    assert found[:2] == [1, 1]
    assert set(found[2:6]) == {found[2]}
    assert set(found[6:]) == {found[6]}
    assert np.finfo(np.float64).tiny < found[6] < 1e-303 < 1e304 < found[2] < INF


def test_erf_is_as_good_as_its_formula() -> None:
    x = torch.cat([torch.linspace(-7, 7, 3001), torch.tensor([0.0, -0.0, 1e30, -1e30, INF, -INF])]).double()
    assert max(abs(math.erf(a) - b) for a, b in zip(x.tolist(), erf(x).tolist(), strict=True)) < 1.5e-7
    assert erf(x[-2:]).tolist() == [1, -1]


@pytest.mark.parametrize("kind", TORCH)
def test_a_function_is_that_of_torch(kind: str) -> None:
    x = numbers(kind)
    found, wanted = function(kind, x, TOLD.get(kind, ())), TORCH[kind](x.double())
    assert found.dtype == torch.float32
    assert ((found - wanted).abs() <= 1e-6 * wanted.abs().clamp_min(1)).all()


@pytest.mark.parametrize(
    ("kind", "settings", "given", "expected"),
    [
        ("sigmoid", (), [0, 100, INF], [0.5, 1, 1]),
        ("tanh", (), [0, 30, -30, INF, -INF], [0, 1, -1, 1, -1]),
        ("exp", (), [0, 1], [1, 2.7182817459106445]),
        ("hardsigmoid", (), [-3, -INF, 0, 3, 7, 1.5], [0, 0, 0.5, 1, 1, 0.75]),
        ("hardswish", (), [-3, -4, 0, 3, 5, 1], [0, 0, 0, 3, 5, np.float32(2 / 3)]),
        ("silu", (), [0, 200], [0, 200]),
        ("mish", (), [0, 200, 1], [0, 200, np.float32(math.tanh(math.log1p(math.e)))]),
        ("gelu", (), [0, 50, -50], [0, 50, 0]),
        ("gelu_tanh", (), [0, 50, -50], [0, 50, 0]),
        ("elu", (0.5,), [-INF, -1000, 0, 3, INF], [-0.5, -0.5, 0, 3, INF]),
        ("elu", (-2.0,), [-INF], [2]),
        ("leaky_relu", (0.25,), [-8, 0, 8, -INF], [-2, 0, 8, -INF]),
        ("leaky_relu", (0.1,), [-3], [np.float32(-3) * np.float32(0.1)]),  # the slope is an fp32 number
        ("leaky_relu", (-1.0,), [-8, 8], [8, 8]),
        ("relu", (), [-1, 0, 2, INF, -INF], [0, 0, 2, INF, 0]),
        ("abs", (), [-2, 2, -INF], [2, 2, INF]),
        ("sqrt", (), [0, 4, 2], [0, 2, np.sqrt(np.float32(2))]),
        ("log", (), [0, 1, 2, INF, 2**-149], [-INF, 0, np.float32(math.log(2)), INF, np.float32(-149 * math.log(2))]),
        ("log1p", (), [0, -1, 1, INF], [0, -INF, np.float32(math.log(2)), INF]),
        ("expm1", (), [0, -INF, 1], [0, -1, np.float32(math.e - 1)]),
        ("erf", (), [9, -9, INF], [1, -1, 1]),
        ("round", (), [0.5, 1.5, -0.5, -2.5, 2.4, 1e30, INF], [0, 2, 0, -2, 2, np.float32(1e30), INF]),
        ("floor", (), [-0.5, 2.9, -INF], [-1, 2, -INF]),
        ("ceil", (), [-0.5, 2.1, INF], [0, 3, INF]),
        ("sign", (), [-0.0, 0, 3, -INF], [0, 0, 1, -1]),
        ("clamp", (0, 6), [-1, 0, 3, 6, 7, INF, -INF], [0, 0, 3, 6, 6, 6, 0]),
        ("clamp", (-INF, 1), [-1e30, -INF, 3], [np.float32(-1e30), -INF, 1]),
        ("clamp", (-1, INF), [-3, 1e30, INF], [-1, np.float32(1e30), INF]),
    ],
)
def test_values_by_hand(kind: str, settings: tuple[float, ...], given: list[float], expected: list[float]) -> None:
    assert function(kind, torch.tensor(given, dtype=torch.float32), settings).tolist() == expected


SAMPLES = torch.tensor([-0.0, 0.0, 0.5, -0.5, 3, -3, 1e-3, -1e-3, 6, -6, 17.3, -17.3, -95, 88, 1e-40, -1e-40, 1e30])


def layouts(x: Tensor) -> tuple[Tensor, ...]:
    """Return the same numbers in tensors with other memory layouts."""
    return x, x.contiguous(memory_format=torch.channels_last), x.transpose(1, 3), x[:, :, 1:, ::3]


@pytest.mark.parametrize("kind", TORCH)
def test_a_result_does_not_depend_on_where_its_number_stands(kind: str) -> None:
    x = within(kind, SAMPLES)
    told, wanted = TOLD.get(kind, ()), alone(kind, x)
    for length in range(1, 41):
        places = [(place * 7 + length) % len(x) for place in range(length)]
        assert bits(function(kind, x[places], told)) == bits(wanted[places]), length
    places_of = torch.arange(len(x)).repeat(24).reshape(2, 4, 3, len(x))
    for held, places_held in zip(layouts(x[places_of]), layouts(places_of), strict=True):
        assert bits(function(kind, held, told).contiguous()) == bits(wanted[places_held])


@pytest.mark.parametrize("most", [1.0, 700.0])
def test_exp_does_not_depend_on_where_its_number_stands(most: float) -> None:
    x = torch.linspace(-most, most, 40, dtype=torch.float64)
    wanted = bits(torch.cat([exp(number[None]) for number in x]))
    for length in range(1, 41):
        assert bits(exp(x[:length])) == wanted[:length]


@pytest.mark.usefixtures("_flushed")
@pytest.mark.parametrize("kind", TORCH)
def test_flushing_changes_no_result_that_fp32_holds_in_full(kind: str) -> None:
    x = numbers(kind)
    found = function(kind, x, TOLD.get(kind, ()))
    torch.set_flush_denormal(False)
    wanted = function(kind, x, TOLD.get(kind, ()))
    full = (wanted == 0) | (wanted.abs() >= torch.finfo(torch.float32).tiny)
    assert full.sum() > 2000
    assert bits(found[full]) == bits(wanted[full])


@pytest.mark.usefixtures("_flushed")
@pytest.mark.parametrize(
    ("kind", "number"), [("exp", -95.0), ("sigmoid", -95.0), ("silu", -95.0), ("mish", -95.0), ("relu", 1e-40)]
)
def test_flushing_changes_no_subnormal_result(kind: str, number: float) -> None:
    torch.set_flush_denormal(False)
    x = torch.tensor([number])
    wanted = bits(function(kind, x, ()))
    torch.set_flush_denormal(True)
    with subnormals():
        assert bits(function(kind, x, ())) == wanted
    assert (x * 1e-44).item() == 0  # as it was before


@pytest.mark.parametrize("most", [1.5, 30.0, 2.0**20])
def test_log_of_positive_numbers(most: float) -> None:
    x = torch.cat(
        [torch.linspace(1, most, 300, dtype=torch.float64), torch.tensor([1.0, 2**0.5, 2, 4, 2.0**20]).double()]
    )
    x = torch.cat([x, 1 / x, torch.tensor([2.0**-149], dtype=torch.float64)])
    assert bits(log_finite(x)) == bits(log(x))
    found, exact = log(x).tolist(), []
    with localcontext() as context:
        context.prec = 30
        exact = [Decimal(number).ln() for number in x.tolist()]
        for number, right in zip(found, exact, strict=True):
            assert abs(Decimal(number) - right) <= Decimal("2e-16") + Decimal("1e-15") * abs(right)
    assert found[300] == 0


def test_log_outside_its_numbers() -> None:
    found = log(torch.tensor([0.0, -0.0, INF, -1.0, math.nan], dtype=torch.float64))
    assert found[:3].tolist() == [-INF, -INF, INF]
    assert found[3:].isnan().all()


def test_powers_are_those_of_torch() -> None:
    x = torch.tensor([0.0, -0.0, 0.5, 1.0, 3.0, 1e30, -0.5, -1.0, -3.0, INF], dtype=torch.float64)
    y = torch.tensor([0.0, 1.0, 2.0, 3.0, -1.0, -2.0, 0.5, 2.5, 30.0, -30.0], dtype=torch.float64)
    found, wanted = power(x[:, None], y).float(), (x[:, None] ** y).float()
    assert torch.equal(found.isnan(), wanted.isnan())
    torch.testing.assert_close(found, wanted, rtol=3e-7, atol=0, equal_nan=True)
    assert power(torch.tensor(-2.0).double(), torch.tensor(1.5).double()).isnan()
