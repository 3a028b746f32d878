"""Elementwise functions, defined step by step: every step is one IEEE fp64 operation, so any engine gives the same bits.

No two libraries round exp alike. Here exp(x) = 2^n p(r), n = x / ln 2 rounded half to even, r = (x - n hi) - n lo. p is
the Taylor polynomial of degree 13 by Horner's scheme, without fused multiply-add. The relative error is below 1e-15.
log: x = m 2^n with m within a factor of sqrt(2) of 1; ln m = 2 artanh((m - 1) / (m + 1)), by 12 terms of its series. The
relative error is below 1e-15. expm1 and log1p have this error as an absolute one. A power is exp(y log|x|), with the sign of x if y is odd.
erf is formula 7.1.26 of Abramowitz and Stegun (absolute error below 1.5e-7). Results are rounded to fp32 once.
"""

from __future__ import annotations

import math
from collections.abc import Callable

import torch
from torch import Tensor

_LN2_HIGH, _LN2_LOW = float.fromhex("0x1.62e42fee00000p-1"), 1.9082149292705877e-10
"""ln 2 in two parts; the first has 33 bits, so that n times it is exact."""
_FURTHEST = 700.0
"""Larger |x| are clamped to it: exp(+-700) is finite and not subnormal in fp64."""
_TAYLOR = tuple(1 / math.factorial(degree) for degree in range(13, -1, -1))
_ARTANH = tuple(1 / (2 * term + 1) for term in range(11, -1, -1))
_ERF = (1.061405429, -1.453152027, 1.421413741, -0.284496736, 0.254829592)


def exp(x: Tensor) -> Tensor:
    """Return exp of fp64 numbers, any shape."""
    x = x.clamp(-_FURTHEST, _FURTHEST)
    n = (x * (1 / math.log(2))).round()
    r = x - n * _LN2_HIGH
    r = r - n * _LN2_LOW
    result = torch.full_like(x, _TAYLOR[0])
    for factor in _TAYLOR[1:]:
        result = result * r
        result = result + factor
    power = ((n.to(torch.int64) + 1023) << 52).view(torch.float64)  # 2^n, exactly
    return result * power


def log_finite(x: Tensor) -> Tensor:
    """Return ln of positive, finite, normal fp64 numbers, any shape."""
    m, n = torch.frexp(x)
    low = m < math.sqrt(0.5)
    m, n = torch.where(low, m * 2, m), n.double() - low.double()
    part = (m - 1) / (m + 1)
    square = part * part
    result = torch.full_like(x, _ARTANH[0])
    for factor in _ARTANH[1:]:
        result = result * square
        result = result + factor
    return n * math.log(2) + (part * 2) * result


def log(x: Tensor) -> Tensor:
    """Return ln of fp64 numbers, any shape, none of them subnormal: -inf of 0, NaN of negative numbers."""
    inside = (x > 0) & (x < math.inf)
    outside = torch.where(x == 0, -math.inf, torch.where(x > 0, math.inf, math.nan))
    return torch.where(inside, log_finite(torch.where(inside, x, 1)), outside)


def power(x: Tensor, y: Tensor) -> Tensor:
    """Return x to the power of y, fp64 numbers, none of them subnormal: NaN of a negative x if y is not whole."""
    size, is_whole = exp(y * log(x.abs())), y.floor() == y
    is_odd = is_whole & ((y / 2).floor() * 2 != y)
    found = torch.where(is_odd & x.signbit(), -size, size)
    found = torch.where((x < 0) & ~is_whole, math.nan, found)
    return torch.where(y == 0, 1.0, found)


def erf(x: Tensor) -> Tensor:
    """Return erf of fp64 numbers, any shape."""
    size = x.abs()
    t = 1 / (size * 0.3275911 + 1)
    result = torch.full_like(x, _ERF[0])
    for factor in _ERF[1:]:
        result = result * t
        result = result + factor
    result = 1 - (result * t) * exp(-(size * size))
    return torch.where(x < 0, -result, result)


def sigmoid(x: Tensor) -> Tensor:
    return 1 / (exp(-x) + 1)


def tanh(x: Tensor) -> Tensor:
    twice = exp(x.clamp(-20, 20) * 2)
    return (twice - 1) / (twice + 1)


def mish(x: Tensor) -> Tensor:
    """Return x tanh(ln(1 + e^x)), computed as x n / (n + 2) with n = e^x (e^x + 2)."""
    power = exp(x.clamp(max=20))
    n = power * (power + 2)
    return x * (n / (n + 2))


def gelu(x: Tensor) -> Tensor:
    return (x * 0.5) * (erf(x * math.sqrt(0.5)) + 1)


def gelu_tanh(x: Tensor) -> Tensor:
    cube = (x * x) * x
    return (x * 0.5) * (tanh((cube * 0.044715 + x) * math.sqrt(2 / math.pi)) + 1)


def elu(x: Tensor, alpha: float) -> Tensor:
    return torch.where(x > 0, x, (exp(x.clamp(max=0)) - 1) * alpha)


def hardsigmoid(x: Tensor) -> Tensor:
    return (x + 3).clamp(0, 6) / 6


WIDE: dict[str, Callable[..., Tensor]] = {
    "elu": elu, "exp": exp, "gelu": gelu, "gelu_tanh": gelu_tanh, "mish": mish, "sigmoid": sigmoid,
    "silu": lambda x: x * sigmoid(x), "tanh": tanh, "hardsigmoid": hardsigmoid,
    "hardswish": lambda x: x * hardsigmoid(x), "sqrt": lambda x: x.sqrt(), "erf": erf, "log": log,
    "log1p": lambda x: log(x + 1), "expm1": lambda x: exp(x) - 1,
}  # fmt: skip
"""Computed in fp64, rounded once."""

EXACT: dict[str, Callable[..., Tensor]] = {
    "abs": torch.abs, "ceil": torch.ceil, "floor": torch.floor, "round": torch.round, "sign": torch.sign,
}  # fmt: skip
"""Computed in fp32, without rounding; `round` takes the even one of two neighbours at the same distance."""


def function(kind: str, x: Tensor, settings: tuple[float, ...]) -> Tensor:
    """Apply the function that programs call `kind` to fp32 numbers, any shape; settings are rounded to fp32."""
    settings = tuple(torch.tensor(settings, dtype=torch.float32).tolist())
    if kind in WIDE:
        return WIDE[kind](x.double(), *settings).float()
    if kind == "relu":
        return x.clamp_min(0)
    if kind in EXACT:
        return EXACT[kind](x)
    if kind == "clamp":
        return x.clamp(*settings)
    assert kind == "leaky_relu"
    return torch.where(x > 0, x, x * settings[0])
