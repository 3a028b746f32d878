"""Quantizer formulas on plain tensors: integer codes, a scale, and a pseudo-gradient where rounding has none.

A quantized tensor is codes * scale. Nothing here has state, and nothing edits its argument.

Activations are large and memory is slow, so comparisons are made in place on a copy (1 or 0 in its own type): a
mask of bools, turned into numbers, takes 3 to 8 times as long on a CPU.
"""

from __future__ import annotations

from typing import Any, NamedTuple

import torch
from torch import Tensor

ACTIVATION_PRESCALE = 0.1
"""The original multiplies activations by this before DoReFa clips them to [0, 1]; BN makes up for it."""

TERNARY_THRESHOLD = 0.7
"""Times the mean |w| of a filter: the threshold of ternary weight networks (arXiv 1605.04711, eq. 6)."""

GAP = 0.8
"""Lower edge of the band below a threshold in which a ternary weight keeps its value."""

TERNARY_ACTIVATION_THRESHOLD = 0.5


class Quantized(NamedTuple):
    """codes: integers kept as floats, 0 meaning 0. scale: None for 1, or broadcastable to the codes."""

    codes: Tensor
    scale: Tensor | None


class _StraightThrough(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, x: Tensor, value: Tensor, slope: Tensor | None) -> Tensor:
        ctx.slope = slope
        return value

    @staticmethod
    def backward(ctx: Any, *grads: Tensor) -> tuple[Tensor, None, None]:
        return grads[0] if ctx.slope is None else grads[0] * ctx.slope, None, None


def straight_through(x: Tensor, value: Tensor, slope: Tensor | None = None) -> Tensor:
    """`value`, exactly, with d value / d x = `slope` (None: 1) (arXiv 1308.3432). Shapes: all alike."""
    return _StraightThrough.apply(x, value, slope)


def round_ste(x: Tensor) -> Tensor:
    """Round half to even; gradient 1.

    >>> x = torch.tensor([0.4, 1.5, -2.5], requires_grad=True)
    >>> y = round_ste(x); y.sum().backward(); y.tolist(), x.grad.tolist()
    ([0.0, 2.0, -2.0], [1.0, 1.0, 1.0])
    """
    return straight_through(x, x.detach().round())


def clip(x: Tensor, low: float, high: float) -> Tensor:
    """Clamp, with gradient 1 on the edges, too: torch.clamp's differs there between versions."""
    raw = x.detach()
    value = raw.clamp(low, high)
    return straight_through(x, value, value.clone().eq_(raw))


def slope(x: Tensor, kind: str) -> Tensor | None:
    """Pseudo-derivative of sign: `ste` 1, `saturate` 1 inside [-1, 1] and 0 outside, `soft` max(0, 1 - |x|).

    Raises:
        ValueError: for another kind.
    """
    x = x.detach()
    if kind == "ste":
        return None
    if kind == "saturate":
        return x.abs().le_(1)
    if kind == "soft":
        return (1 - x.abs()).clamp_min(0)
    raise ValueError(f"unknown straight-through estimator {kind!r}: ste, saturate or soft")


def sign(x: Tensor) -> Tensor:
    """+1 or -1; sign(0) = +1, so that one bit is enough."""
    return x.detach().clone().ge_(0).mul_(2).sub_(1)


def sign_ste(x: Tensor, kind: str = "saturate") -> Tensor:
    """Binary codes of `x`, sign(0) = +1 (arXiv 1602.02830); gradient by `kind`, see `slope`.

    >>> x = torch.tensor([-2.0, 0.0, 0.5], requires_grad=True)
    >>> y = sign_ste(x, "saturate"); y.sum().backward(); y.tolist(), x.grad.tolist()
    ([-1.0, 1.0, 1.0], [0.0, 1.0, 1.0])
    """
    return straight_through(x, sign(x.detach()), slope(x, kind))


def ternary_activation(x: Tensor, kind: str = "saturate") -> Tensor:
    """Codes -1, 0, +1 with thresholds at -0.5 and +0.5 (which belong to 0).

    Gradient: `ste` 1, `saturate` cut outside [-1, 1], `soft` a triangle around each threshold,
    max(0, 1 - 2 | |x| - 0.5 |).
    """
    raw = x.detach()
    codes = raw.abs().gt_(TERNARY_ACTIVATION_THRESHOLD).mul_(raw.sign())
    if kind == "soft":
        triangle = (1 - 2 * (raw.abs() - TERNARY_ACTIVATION_THRESHOLD).abs()).clamp_min(0)
        return straight_through(x, codes, triangle)
    return straight_through(x, codes, slope(x, kind))


def dorefa_weight(weight: Tensor, bits: int) -> Quantized:
    """DoReFa weights (arXiv 1606.06160, eq. 9): t = tanh(w) / (2 max|tanh w|) + 1/2 in 2^k - 1 steps, 2t - 1.

    Codes are the odd integers from -(2^k - 1) to 2^k - 1, the scale is 1 / (2^k - 1). The maximum is a
    constant in the gradient. All-zero weights: t = 1/2; so are those too small for a finite gradient, levels / max.
    """
    levels = 2**bits - 1
    squashed = weight.tanh()
    peak = squashed.detach().abs().amax()
    least = torch.finfo(weight.dtype).tiny * 2**bits
    t = squashed / (2 * torch.where(peak > least, peak, torch.ones_like(peak))) + 0.5
    codes = 2 * round_ste(t * levels) - levels
    return Quantized(codes, weight.new_full((), 1 / levels))


def dorefa_activation(x: Tensor, bits: int) -> Quantized:
    """DoReFa activations: clamp(0.1 x, 0, 1) in 2^k - 1 steps. Codes 0 .. 2^k - 1, scale 1 / (2^k - 1).

    Gradient: 0.1 where 0 <= 0.1 x <= 1, else 0.
    """
    levels = 2**bits - 1
    codes = round_ste(clip(x * ACTIVATION_PRESCALE, 0, 1) * levels)
    return Quantized(codes, x.new_full((), 1 / levels))


def centred(weight: Tensor) -> Tensor:
    """Each filter minus its mean over the input channels; left alone where there is one: nothing would remain.

    A mean whose sum overflows is taken as the largest number, or 0 where both signs do.
    """
    return weight if weight.shape[1] == 1 else weight - weight.mean(1, keepdim=True).nan_to_num()


def _filters(weight: Tensor) -> tuple[int, ...]:
    return tuple(range(1, weight.ndim))


def binary_weight(weight: Tensor, scale: bool = True, kind: str = "ste") -> Quantized:
    """Binary weights (XNOR-Net, arXiv 1603.05279): the sign of each centred weight, times the mean |w| of its filter.

    Gradient: through the codes by `kind`, and through the scale. All-zero filter: codes +1, scale 0.

    Args:
        weight: (out, in / groups, ...).
        scale: False leaves the codes alone (scale 1), for hardware that cannot multiply.
    """
    middle = centred(weight)
    codes = sign_ste(middle, kind)
    factor = clip(middle, -1, 1).abs().mean(_filters(weight), keepdim=True) if scale else None
    return Quantized(codes, factor)


def ternary_weight(weight: Tensor, scale: bool = True, kind: str = "ste", previous: Tensor | None = None) -> Quantized:
    """Ternary weights (TWN, arXiv 1605.04711): sign(w) where |w| > t = 0.7 mean|w| of the filter, else 0.

    The scale is the mean |w| of the weights that are not 0; a filter of zeros, or one whose sum overflows, has
    codes 0 and scale 0.
    Gradient: through the codes by `kind`, and through the scale; t is a constant.

    Args:
        weight: (out, in / groups, ...).
        previous: codes of the step before, for a gap: where 0.8 t < |w| <= t a weight keeps its old value
            (if that has its sign), so that it does not flicker about the threshold.
    """
    raw, dims = weight.detach(), _filters(weight)
    size = raw.abs()
    threshold = TERNARY_THRESHOLD * size.mean(dims, keepdim=True)
    chosen = size > threshold
    if previous is not None:
        held = (size > GAP * threshold) & (previous == raw.sign()) & (previous != 0)
        chosen = chosen | held
    codes = straight_through(weight, raw.sign() * chosen, slope(weight, kind))
    if not scale:
        return Quantized(codes, None)
    count = chosen.sum(dims, keepdim=True).clamp_min(1)
    return Quantized(codes, (weight.abs() * chosen).sum(dims, keepdim=True) / count)


def affine_range(low: Tensor, high: Tensor, bits: int, symmetric: bool) -> tuple[Tensor, Tensor]:
    """Scale and zero point that cover [low, high], widened to hold 0 (Jacob et al., arXiv 1712.05877, section 3).

    Symmetric: codes -(2^(k-1) - 1) .. 2^(k-1) - 1, zero point 0. Asymmetric: 0 .. 2^k - 1, the zero point an
    integer, so that the real 0 is exact. A range of zero width (constant 0): scale 1. The ends of one wider than
    the largest number are cut off.
    """
    low, high = low.clamp_max(0), high.clamp_min(0)
    largest = 0.999 * torch.finfo(low.dtype).max  # the outermost code times the scale has to fit, rounded as it is
    if symmetric:
        scale = torch.maximum(-low, high).clamp_max(largest) / (2 ** (bits - 1) - 1)
    else:
        scale = (high - low).clamp_max(largest) / (2**bits - 1)
    scale = torch.where(scale > torch.finfo(scale.dtype).tiny, scale, torch.ones_like(scale))
    zero = torch.zeros_like(scale) if symmetric else (-low / scale).round().clamp(0, 2**bits - 1)
    return scale, zero


def affine(x: Tensor, scale: Tensor, zero: Tensor, bits: int, symmetric: bool) -> Quantized:
    """Quantize with a given grid: clamp(round(x / scale) + zero, lowest, highest) - zero, so code 0 is the real 0.

    Gradient: 1 inside the range, 0 outside; the scale is a constant.
    """
    lowest, highest = (-(2 ** (bits - 1) - 1), 2 ** (bits - 1) - 1) if symmetric else (0, 2**bits - 1)
    steps = x / scale
    nearest = steps.detach().round()
    codes = torch.minimum(torch.maximum(nearest, lowest - zero), highest - zero)
    return Quantized(straight_through(steps, codes, nearest.eq_(codes)), scale)


def affine_weight(weight: Tensor, bits: int, symmetric: bool, per_channel: bool) -> Quantized:
    """Quantize a weight over its own range, one a filter or one for all. Scale: (out, 1, ...) or a scalar."""
    raw, dims = weight.detach(), _filters(weight) if per_channel else tuple(range(weight.ndim))
    scale, zero = affine_range(
        raw.amin(dims, keepdim=per_channel), raw.amax(dims, keepdim=per_channel), bits, symmetric
    )
    return affine(weight, scale, zero, bits, symmetric)
