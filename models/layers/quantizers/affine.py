"""Affine grids, INT8 and narrower (Jacob et al., arXiv 1712.05877): symmetric or with a zero point."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor

from engine.numerics import sums
from models.layers.quantizers.base import Quantized, Quantizer, Rule, Steps, filters, straight_through, wants_slope
from models.layers.quantizers.kinds import Kind, Spec, Traits, WholeSpec, register

TRAITS = Traits(
    name="affine",
    bits=(2, 3, 4, 5, 6, 7, 8),
    words="INT8 and narrower, every layer",
    settings=("symmetric", "per_channel", "bn_fold", "sums", "ends"),
    ends="picture",
    bn_momentum=0.01,
    lr=0.05,
    refining_lr=0.01,
)


def affine_range(low: Tensor, high: Tensor, bits: int, symmetric: bool) -> tuple[Tensor, Tensor]:
    """Return scale and zero point to cover [low, high], widened to hold 0 (Jacob et al., arXiv 1712.05877, section 3).

    Symmetric: codes -(2^(k-1) - 1) .. 2^(k-1) - 1, zero point 0. Asymmetric: 0 .. 2^k - 1, with an integer zero point,
    so that the real 0 is exact. A range of zero width (constant 0) has scale 1. A range wider than the largest number
    is clipped.
    """
    low, high = low.clamp_max(0), high.clamp_min(0)
    largest = 0.999 * torch.finfo(low.dtype).max  # the outermost code times the scale, rounded, must not overflow
    if symmetric:
        scale = torch.maximum(-low, high).clamp_max(largest) / (2 ** (bits - 1) - 1)
    else:
        scale = (high - low).clamp_max(largest) / (2**bits - 1)
    scale = torch.where(scale > torch.finfo(scale.dtype).tiny, scale, torch.ones_like(scale))
    zero = torch.zeros_like(scale) if symmetric else (-low / scale).round().clamp(0, 2**bits - 1)
    return scale, zero


def code_range(bits: int, symmetric: bool) -> tuple[int, int]:
    """Return the lowest and the highest code, before the zero point is subtracted."""
    return (-(2 ** (bits - 1) - 1), 2 ** (bits - 1) - 1) if symmetric else (0, 2**bits - 1)


def affine(x: Tensor, scale: Tensor, zero: Tensor, bits: int, symmetric: bool) -> Quantized:
    """Quantize with a given grid: clamp(round(x / scale) + zero, lowest, highest) - zero, so code 0 is the real 0.

    Gradient: 1 inside the range, 0 outside; the scale is a constant.
    """
    lowest, highest = code_range(bits, symmetric)
    steps = x / scale
    if not wants_slope(steps) and scale.ndim == 0:  # a scale for each filter gives results another memory format
        nearest = steps.round_()
        torch.maximum(nearest, lowest - zero, out=nearest)
        return Quantized(torch.minimum(nearest, highest - zero, out=nearest), scale)
    nearest = steps.detach().round()
    codes = torch.minimum(torch.maximum(nearest, lowest - zero), highest - zero)
    return Quantized(straight_through(steps, codes, nearest.eq_(codes)) if wants_slope(steps) else codes, scale)


def affine_weight(weight: Tensor, bits: int, symmetric: bool, per_channel: bool) -> Quantized:
    """Quantize a weight over its own range, for each filter or for all. Scale: (out, 1, ...) or a scalar."""
    raw, dims = weight.detach(), filters(weight) if per_channel else tuple(range(weight.ndim))
    scale, zero = affine_range(
        raw.amin(dims, keepdim=per_channel), raw.amax(dims, keepdim=per_channel), bits, symmetric
    )
    return affine(weight, scale, zero, bits, symmetric)


class AffineWeight(Quantizer):
    """See affine_weight."""

    repeats = True

    def __init__(self, bits: int, symmetric: bool, per_channel: bool) -> None:
        super().__init__()
        self.bits, self.symmetric, self.per_channel = bits, symmetric, per_channel
        numbers = 1 if symmetric else 2  # a scale; if asymmetric, also a zero point
        self.scales, self.constants = (numbers, 0) if per_channel else (0, numbers)
        self.zero_points = numbers - 1

    def forward(self, weight: Tensor) -> Quantized:
        return affine_weight(weight, self.bits, self.symmetric, self.per_channel)


class AffineActivation(Quantizer):
    """See affine. The range is a moving average over training batches, until it is frozen.

    Buffers: low and high, the range; seen, whether the range is set.

    Until a training batch or `set_range` sets the range, eval mode passes the input on unquantized.
    """

    MOMENTUM = 0.01

    def __init__(self, bits: int, symmetric: bool) -> None:
        super().__init__()
        self.bits, self.symmetric, self.frozen = bits, symmetric, False
        self.constants = 1 if symmetric else 2  # a scale, and a zero point
        self.low: Tensor
        self.high: Tensor
        self.seen: Tensor
        self.register_buffer("low", torch.zeros(()))
        self.register_buffer("high", torch.zeros(()))
        self.register_buffer("seen", torch.zeros((), dtype=torch.int8))

    def scale_and_zero(self) -> tuple[Tensor, Tensor]:
        return affine_range(self.low, self.high, self.bits, self.symmetric)

    def grid(self) -> Steps | None:
        if not self.seen:
            return None
        scale, zero = (number.item() for number in self.scale_and_zero())
        lowest, highest = code_range(self.bits, self.symmetric)
        return Steps(1 / scale, scale, lowest - int(zero), highest - int(zero))

    def codes_now(self) -> bool:
        return self.training or bool(self.seen)

    def span(self) -> tuple[int, int]:
        lowest, highest = code_range(self.bits, self.symmetric)
        zero = self.scale_and_zero()[1].item()
        if not math.isfinite(zero):
            return -highest, highest
        return lowest - int(zero), highest - int(zero)

    def on_epoch(self, epoch: int, epochs: int) -> None:
        """Freeze the range in the last quarter of the epochs, rounded up, so that the rest of the network settles around it."""
        self.frozen = epoch >= max(1, (3 * epochs) // 4)

    def fault(self) -> str:
        if self.low <= 0 <= self.high:
            return ""
        return f" has a range without 0, {self.low:g} to {self.high:g}"

    @torch.no_grad()
    def set_range(self, low: Tensor, high: Tensor) -> None:
        """Fix the range, as calibration does."""
        self.low.copy_(low)
        self.high.copy_(high)
        self.seen.fill_(1)

    def ready(self) -> bool:
        return self.codes_now()

    def asks_for_ends(self) -> bool:
        return self.training and not self.frozen

    def rule(self, features: int, ends: Callable[[], tuple[Tensor, Tensor]]) -> Rule:
        if self.asks_for_ends():
            self._observe(*ends())
        scale, zero = self.scale_and_zero()
        lowest, highest = code_range(self.bits, self.symmetric)
        return Rule("round", scale, lowest - zero, highest - zero, slopes="rounded", scale=scale)

    @torch.no_grad()
    def _observe(self, low: Tensor, high: Tensor) -> None:
        low, high = sums.least(low), sums.most(high)
        share = torch.where(self.seen > 0, self.MOMENTUM, 1.0)  # the first batch sets the range
        self.low.lerp_(low.clamp_max(0).to(self.low.dtype), share.to(self.low.dtype))
        self.high.lerp_(high.clamp_min(0).to(self.high.dtype), share.to(self.high.dtype))
        self.seen.fill_(1)

    def forward(self, x: Tensor) -> Quantized:
        if self.asks_for_ends():
            self._observe(x.detach().amin(), x.detach().amax())
        elif not self.training and not self.seen:  # not checked in training: it would wait for the GPU
            return Quantized(x, None)
        return affine(x, *self.scale_and_zero(), self.bits, self.symmetric)


def possible(codes: Tensor, spec: Spec) -> bool:
    """Return whether a weight can have these codes, (out, n); a zero point may shift a filter's codes."""
    levels = 2**spec.bits - 1
    if spec.symmetric:
        return bool((codes.abs() <= levels // 2).all())
    return bool((codes.amax(1).clamp_min(0) - codes.amin(1).clamp_max(0) <= levels).all())


def file_name(spec: WholeSpec) -> str:
    """Return a spec as in file names: int8_q1_fold0, intw4a8_q0_fold1_tensor."""
    w, a = spec.weight.bits, spec.activation.bits
    bits = f"int{w}" if w == a else f"intw{w}a{a}"
    whole = "" if spec.weight.per_channel else "_tensor"  # one grid for all filters
    sums = "_sums" if spec.sums == "int8" else ""
    ends = "_ends" if spec.ends == "int8" else ""
    return f"{bits}_q{int(not spec.weight.symmetric)}_fold{int(spec.bn_fold)}{whole}{sums}{ends}"


def original(bn_fold: bool, arch: str) -> dict[str, Any]:
    """Return the original repository's recipe for INT8: 30 epochs, with steps that depend on fold and network."""
    steps = (15, 17, 20)
    if bn_fold:
        return {"epochs": 30, "steps": (8, 12, 20, 25) if arch == "nin_gc" else (12, 15, 25)}
    return {"epochs": 30, "steps": steps}


register(
    Kind(
        traits=TRAITS,
        weight=lambda spec, weight: AffineWeight(spec.bits, spec.symmetric, spec.per_channel),
        activation=lambda spec, signed: AffineActivation(spec.bits, spec.symmetric),
        codes=lambda bits: range(2**bits),
        possible=possible,
        file_name=file_name,
        original=original,
    )
)
