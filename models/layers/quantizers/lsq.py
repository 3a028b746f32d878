"""Learned step sizes (LSQ, Esser et al., arXiv 1902.08153): the width of a step is a parameter, trained with the weights.

A step of 0, below 0, or that is no number has no meaning, and an optimizer can take it there. Such a quantizer gives NaN:
the loss is none then, and training ends as it does for every divergence (exit 5, the old file stays). A file that holds
such a step is refused.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn

from engine.system import sums
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
    """Whether a step is a positive number. Shape: of the step."""
    return (step > 0) & step.isfinite()


def first_step(x: Tensor, highest: int) -> Tensor:
    """The step that training starts from, 2 mean|x| / sqrt(highest code); 1 for nothing but zeros. Shape: ()."""
    return _step(x.abs().mean(), highest)


def _step(mean: Tensor, highest: int) -> Tensor:
    step = 2 * mean / highest**0.5
    return torch.where(step == 0, torch.ones_like(step), step)


def learned(step: Tensor, count: int) -> Tensor:
    """A step whose gradient is divided by sqrt(count) (section 2.2); NaN for one that is not positive. Shape: ()."""
    return straight_through(step, torch.where(usable(step), step, torch.nan).detach(), step.new_full((), count**-0.5))


def lsq(x: Tensor, step: Tensor, lowest: int, highest: int, count: int) -> Quantized:
    """round(clip(x / step, lowest, highest)) times step (sections 2 and 2.1); NaN for a step that is not positive.

    Gradient of the value: of x 1 where lowest < x / step < highest, else 0. Of the step round(x / step) - x / step there,
    `lowest` or `highest` beyond, all times 1 / sqrt(count * highest).

    Args:
        step: of shape ().
        count: of the weights, or of the features of one picture.
    """
    step = learned(step, count * highest)
    steps = x / step
    raw = steps.detach()
    if not wants_slope(steps):
        return Quantized(raw.clamp(lowest, highest).round_(), step)
    inside = raw.clone().gt_(lowest).mul_(raw < highest)
    return Quantized(straight_through(steps, raw.clamp(lowest, highest).round_(), inside), step)


class _Learned(Quantizer):
    """What both have: a step, and codes from `lowest` to `highest`. Its state is `step`, a parameter of shape ()."""

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
        weight: what the first step is measured on.
    """

    def __init__(self, bits: int, weight: Tensor) -> None:
        super().__init__(bits, signed=True)
        self.step = nn.Parameter(first_step(weight.detach(), self.highest))

    def forward(self, weight: Tensor) -> Quantized:
        return lsq(weight, self.step, self.lowest, self.highest, weight.numel())


class LsqActivation(_Learned):
    """See lsq; codes 0 .. 2^k - 1, or those of weights where the input may be negative.

    The first training batch sets the step. Until then, eval mode passes the input on as it is, unquantized.
    Buffer: seen, whether there has been one.
    """

    def __init__(self, bits: int, negative: bool) -> None:
        super().__init__(bits, negative)
        self._begun = False  # as `seen`, for this run: a GPU would have to wait for that answer
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
        return Rule("round", step, self.lowest, self.highest, margin=None, scale=step)

    @torch.no_grad()
    def _begin(self, x: Tensor) -> None:
        (total,), count = sums.totals(x.abs().sum()[None], x.numel())
        self.step.copy_(torch.where(self.seen > 0, self.step, _step(total / count, self.highest)))
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
