"""Learned step sizes (LSQ, Esser et al., arXiv 1902.08153): the step size is a parameter, trained with the weights.

An optimizer can make a step 0, negative or non-finite, which has no meaning. Such a quantizer returns NaN, so the loss
is NaN and training ends like every divergence (exit 5, the old file stays). A file with such a step is refused.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn

from engine.numerics import sums
from models.layers.quantizers.base import Quantized, Quantizer, Rule, Steps, straight_through, wants_slope
from models.layers.quantizers.kinds import Kind, Traits, register

TRAITS = Traits(
    name="lsq",
    bits=(2, 3, 4, 5, 6, 7, 8),
    words="learned steps, first and last layer 8 bit",
    ends="bits",
    end_bits=8,
    follows_sign=True,
)


def usable(step: Tensor) -> Tensor:
    """Return whether a step is a positive finite number, in the step's shape."""
    return (step > 0) & step.isfinite()


def first_step(x: Tensor, highest: int) -> Tensor:
    """Return the first step of training, 2 mean|x| / sqrt(highest code), or 1 if all are zeros. Shape: ().

    It is positive and finite for all finite numbers: where x's type cannot hold it, it is the nearest number of the type.
    """
    unit = _unit(x.abs().amax())
    return _step((x.abs() / unit).mean(), unit, highest)


def _unit(largest: Tensor) -> Tensor:
    """Return the power of two at or below a number, or 1 for 0. Sums in this unit neither overflow nor vanish."""
    return torch.where(largest > 0, largest / (2 * torch.frexp(largest).mantissa), 1)


def _step(mean: Tensor, unit: Tensor, highest: int) -> Tensor:
    """Return the first step for a mean in units."""
    step = 2 * mean / highest**0.5 * unit
    least = torch.nextafter(torch.zeros_like(step), torch.ones_like(step))
    near = step.clamp(least, torch.finfo(step.dtype).max)
    return torch.where(mean == 0, torch.ones_like(step), torch.where(mean.isfinite(), near, step))


def learned(step: Tensor, count: int) -> Tensor:
    """Return the step with its gradient divided by sqrt(count) (section 2.2); NaN if it is not positive. Shape: ()."""
    return straight_through(step, torch.where(usable(step), step, torch.nan).detach(), step.new_full((), count**-0.5))


def lsq(x: Tensor, step: Tensor, lowest: int, highest: int, count: int) -> Quantized:
    """Return round(clip(x / step, lowest, highest)) * step (sections 2 and 2.1); NaN for a step that is not positive.

    Gradient for x: 1 where lowest < x / step < highest, else 0. Gradient for the step: round(x / step) - x / step in
    that range, `lowest` or `highest` outside, all times 1 / sqrt(count * highest).

    Args:
        step: the step size, of shape ().
        count: number of weights, or of features of one picture.
    """
    step = learned(step, count * highest)
    steps = x / step
    raw = steps.detach()
    if not wants_slope(steps):
        return Quantized(raw.clamp_(lowest, highest).round_(), step)
    inside = raw.clone().gt_(lowest).mul_(raw < highest)
    return Quantized(straight_through(steps, raw.clamp(lowest, highest).round_(), inside), step)


class _Learned(Quantizer):
    """The common part of both: codes from `lowest` to `highest`, and the parameter `step` of shape ()."""

    constants = 1

    def __init__(self, bits: int, signed: bool) -> None:
        super().__init__()
        self.bits = bits
        self.lowest: int = -(2 ** (bits - 1)) if signed else 0
        self.highest: int = self.lowest + 2**bits - 1
        self.step = nn.Parameter(torch.ones(()))

    def fault(self) -> str:
        return "" if usable(self.step) else f".step is {self.step.item():g}, not a positive number"


class LsqWeight(_Learned):
    """See lsq; codes -2^(k-1) .. 2^(k-1) - 1.

    Args:
        weight: the weight that the first step is measured on.
    """

    repeats = True

    def __init__(self, bits: int, weight: Tensor) -> None:
        super().__init__(bits, signed=True)
        self.step = nn.Parameter(first_step(weight.detach(), self.highest))

    def forward(self, weight: Tensor) -> Quantized:
        return lsq(weight, self.step, self.lowest, self.highest, weight.numel())


class LsqActivation(_Learned):
    """See lsq; codes 0 .. 2^k - 1, or those of weights if the input may be negative.

    The first training batch sets the step. Until then, eval mode passes the input on unquantized.
    Buffer: seen, whether the step is set.
    """

    def __init__(self, bits: int, negative: bool) -> None:
        super().__init__(bits, negative)
        self._begun = False  # a copy of `seen` on the CPU: reading `seen` would wait for the GPU
        self.seen: Tensor
        self.register_buffer("seen", torch.zeros((), dtype=torch.int8))

    def grid(self) -> Steps | None:
        if not self.seen:
            return None
        step = self.step.item()
        return Steps(1 / step, step, self.lowest, self.highest)

    def codes_now(self) -> bool:
        return self.training or bool(self.seen)

    def span(self) -> tuple[int, int]:
        return self.lowest, self.highest

    def ready(self) -> bool:
        self._begun = self._begun or bool(self.seen)
        return self._begun

    def rule(self, features: int, *_: Any) -> Rule:
        step = learned(self.step, features * self.highest)
        return Rule("round", step, self.lowest, self.highest, slopes="between", scale=step)

    @torch.no_grad()
    def _begin(self, x: Tensor) -> None:
        unit = _unit(sums.most(x.abs().amax()))
        (total,), count = sums.totals((x.abs() / unit).sum()[None], x.numel())
        self.step.copy_(torch.where(self.seen > 0, self.step, _step(total / count, unit, self.highest)))
        self.seen.fill_(1)
        self._begun = True

    def forward(self, x: Tensor) -> Quantized:
        if self.training and not self._begun:
            self._begin(x.detach())
        elif not self.training and not self.seen:
            return Quantized(x, None)
        return lsq(x, self.step, self.lowest, self.highest, x[0].numel())


register(
    Kind(
        traits=TRAITS,
        weight=lambda spec, weight: LsqWeight(spec.bits, weight),
        activation=lambda spec, signed: LsqActivation(spec.bits, signed),
        codes=lambda bits: range(-(2 ** (bits - 1)), 2 ** (bits - 1)),
    )
)
