"""DoReFa (arXiv 1606.06160): weights by their tanh on 2^k levels, activations of a fixed range."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from models.layers.quantizers.base import Quantized, Quantizer, Rule, Steps, clip, round_ste, wants_slope
from models.layers.quantizers.kinds import Kind, Traits, register

ACTIVATION_PRESCALE = 0.1
"""The original repository multiplies activations by this before DoReFa clips them to [0, 1]; BN compensates for it."""

TRAITS = Traits(
    name="dorefa",
    bits=(2, 3, 4, 5, 6, 7, 8),
    prefix="",
    mixes=True,
    settings=("ends",),
    fixed_range=True,
)


def dorefa_weight(weight: Tensor, bits: int) -> Quantized:
    """Return DoReFa weights (arXiv 1606.06160, eq. 9): t = tanh(w) / (2 max|tanh w|) + 1/2 in 2^k - 1 steps, 2t - 1.

    Codes are the odd integers from -(2^k - 1) to 2^k - 1, the scale is 1 / (2^k - 1). The maximum is a
    constant in the gradient. All-zero weights have t = 1/2, like those too small for a finite gradient, levels / max.
    """
    levels = 2**bits - 1
    squashed = weight.tanh()
    peak = squashed.detach().abs().amax()
    least = torch.finfo(weight.dtype).tiny * 2**bits
    t = squashed / (2 * torch.where(peak > least, peak, torch.ones_like(peak))) + 0.5
    codes = 2 * round_ste(t * levels) - levels
    return Quantized(codes, weight.new_full((), 1 / levels))


def dorefa_activation(x: Tensor, bits: int) -> Quantized:
    """Return DoReFa activations: clamp(0.1 x, 0, 1) in 2^k - 1 steps. Codes 0 .. 2^k - 1, scale 1 / (2^k - 1).

    Gradient: 0.1 where 0 <= 0.1 x <= 1, else 0.
    """
    levels = 2**bits - 1
    scale = x.new_full((), 1 / levels)
    if not wants_slope(x):
        return Quantized((x * ACTIVATION_PRESCALE).clamp_(0, 1).mul_(levels).round_(), scale)
    return Quantized(round_ste(clip(x * ACTIVATION_PRESCALE, 0, 1) * levels), scale)


class DorefaWeight(Quantizer):
    """See dorefa_weight."""

    repeats = True

    def __init__(self, bits: int) -> None:
        super().__init__()
        self.bits = bits

    def forward(self, weight: Tensor) -> Quantized:
        return dorefa_weight(weight, self.bits)


class DorefaActivation(Quantizer):
    """See dorefa_activation."""

    def __init__(self, bits: int) -> None:
        super().__init__()
        self.bits = bits

    def grid(self) -> Steps:
        levels = 2**self.bits - 1
        return Steps(ACTIVATION_PRESCALE * levels, 1 / levels, 0, levels)

    def codes_now(self) -> bool:
        return True

    def span(self) -> tuple[int, int]:
        return 0, 2**self.bits - 1

    def ready(self) -> bool:
        return True

    def rule(self, *_: Any) -> Rule:
        levels = 2**self.bits - 1
        return Rule("share", 1 / (ACTIVATION_PRESCALE * levels), 0, levels, scale=1 / levels)

    def forward(self, x: Tensor) -> Quantized:
        return dorefa_activation(x, self.bits)


register(
    Kind(
        traits=TRAITS,
        weight=lambda spec, weight: DorefaWeight(spec.bits),
        activation=lambda spec, signed: DorefaActivation(spec.bits),
        codes=lambda bits: range(1 - 2**bits, 2**bits, 2),
    )
)
