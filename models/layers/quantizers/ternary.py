"""Ternary weights (TWN, arXiv 1605.04711) and activations: -1, 0, +1."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from models.layers.quantizers.base import Quantized, Quantizer, Rule, Signs, filters, slope, straight_through
from models.layers.quantizers.kinds import Kind, Traits, register

THRESHOLD = 0.7
"""The threshold of ternary weight networks divided by the mean |w| of a filter (arXiv 1605.04711, eq. 6)."""

GAP = 0.8
"""The lower edge of the band, as a fraction of the threshold, in which a ternary weight keeps its value."""

ACTIVATION_THRESHOLD = 0.5

TRAITS = Traits(
    name="ternary",
    bits=(2,),
    short_name="t",
    prefix="",
    family="ternary and binary",
    settings=("scale", "ste", "gap", "ends"),
    input_ste="saturate",
    optimizer="adam",
    lr=5e-3,
    refining_lr=5e-3,
    weight_decay=0.0,
)


def ternary_activation(x: Tensor, kind: str = "saturate") -> Tensor:
    """Return codes -1, 0, +1 with thresholds at -0.5 and +0.5 (which belong to 0).

    Gradient: `ste` 1, `saturate` cut outside [-1, 1], `soft` a triangle around each threshold,
    max(0, 1 - 2 | |x| - 0.5 |).
    """
    raw = x.detach()
    codes = raw.abs().gt_(ACTIVATION_THRESHOLD).mul_(raw.sign())
    if kind == "soft":
        triangle = (1 - 2 * (raw.abs() - ACTIVATION_THRESHOLD).abs()).clamp_min(0)
        return straight_through(x, codes, triangle)
    return straight_through(x, codes, slope(x, kind))


def ternary_weight(weight: Tensor, scale: bool = True, kind: str = "ste", previous: Tensor | None = None) -> Quantized:
    """Return ternary weights (TWN, arXiv 1605.04711): sign(w) where |w| > t = 0.7 mean|w| of the filter, else 0.

    The scale is the mean |w| of the weights that are not 0; a filter of zeros, or one whose sum overflows, has
    codes 0 and scale 0.
    Gradient: through the codes by `kind`, and through the scale; t is a constant.

    Args:
        weight: (out, in / groups, ...).
        previous: codes of the previous step, for a gap: where 0.8 t < |w| <= t, a weight keeps an old code of its
            sign. It then does not oscillate around the threshold.
    """
    raw, dims = weight.detach(), filters(weight)
    size = raw.abs()
    threshold = THRESHOLD * size.mean(dims, keepdim=True)
    chosen = size > threshold
    if previous is not None:
        held = (size > GAP * threshold) & (previous == raw.sign()) & (previous != 0)
        chosen = chosen | held
    codes = straight_through(weight, raw.sign() * chosen, slope(weight, kind))
    if not scale:
        return Quantized(codes, None)
    count = chosen.sum(dims, keepdim=True).clamp_min(1)
    return Quantized(codes, (weight.abs() * chosen).sum(dims, keepdim=True) / count)


class TernaryWeight(Quantizer):
    """See ternary_weight. With a gap, the codes of the last training step are stored as state.

    Args:
        shape: shape of the weight; needed only with `gap`.
    """

    bits = 2
    repeats = True
    latent = (-1, 1)  # as for binary weights, arXiv 1602.02830

    def __init__(
        self, scale: bool = True, ste: str = "ste", gap: bool = False, shape: torch.Size | None = None
    ) -> None:
        super().__init__()
        self.scale, self.ste, self.scales = scale, ste, int(scale)
        self.previous: Tensor | None
        self.register_buffer("previous", torch.zeros(shape or 0, dtype=torch.int8) if gap else None)

    def forward(self, weight: Tensor) -> Quantized:
        quantized = ternary_weight(weight, self.scale, self.ste, self.previous)
        if self.training and self.previous is not None:
            self.previous.copy_(quantized.codes.detach())
        return quantized

    def fault(self) -> str:
        beyond = self.previous is not None and bool((self.previous.abs() > 1).any())
        return ".previous holds codes beyond -1, 0 and 1" if beyond else ""


class TernaryActivation(Quantizer):
    """See ternary_activation."""

    bits = 2
    signed = True

    def __init__(self, ste: str = "saturate") -> None:
        super().__init__()
        self.ste = ste

    def grid(self) -> Signs:
        return Signs(ACTIVATION_THRESHOLD)

    def codes_now(self) -> bool:
        return True

    def span(self) -> tuple[int, int]:
        return -1, 1

    def ready(self) -> bool:
        return True

    def rule(self, *_: Any) -> Rule:
        return Rule("ternary", slope=self.ste)

    def forward(self, x: Tensor) -> Quantized:
        return Quantized(ternary_activation(x, self.ste), None)


register(
    Kind(
        traits=TRAITS,
        weight=lambda spec, weight: TernaryWeight(spec.scale, spec.ste, spec.gap, weight.shape),
        activation=lambda spec, signed: TernaryActivation(spec.ste),
        codes=lambda bits: (-1, 0, 1),
    )
)
