"""Quantizers as modules: a formula of functional.py, its settings, and what state it has. One class a formula.

Each takes a tensor and gives `Quantized(codes, scale)`; `bits` says what a stored code takes.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn

from models.layers import functional as F
from models.layers.functional import Quantized


class Quantizer(nn.Module):
    """The base: what every quantizer says of itself.

    Attributes:
        bits: of a stored code.
        scales: how many stored scales there are a filter (0: the scale is a constant of the formula, or 1).
        signed: whether the activation codes may be negative, so that no ReLU may stand before it.
    """

    part_of_layer = True
    bits = 32
    scales = 0
    signed = False

    def extra_repr(self) -> str:
        return f"bits={self.bits}"


class Identity(Quantizer):
    """32 bits: the tensor is its own code."""

    def forward(self, x: Tensor) -> Quantized:
        return Quantized(x, None)


class DorefaWeight(Quantizer):
    """See functional.dorefa_weight."""

    def __init__(self, bits: int) -> None:
        super().__init__()
        self.bits = bits

    def forward(self, weight: Tensor) -> Quantized:
        return F.dorefa_weight(weight, self.bits)


class DorefaActivation(Quantizer):
    """See functional.dorefa_activation."""

    def __init__(self, bits: int) -> None:
        super().__init__()
        self.bits = bits

    def forward(self, x: Tensor) -> Quantized:
        return F.dorefa_activation(x, self.bits)


class BinaryWeight(Quantizer):
    """See functional.binary_weight."""

    bits = 1

    def __init__(self, scale: bool = True, ste: str = "ste") -> None:
        super().__init__()
        self.scale, self.ste, self.scales = scale, ste, int(scale)

    def forward(self, weight: Tensor) -> Quantized:
        return F.binary_weight(weight, self.scale, self.ste)


class TernaryWeight(Quantizer):
    """See functional.ternary_weight. With a gap, the codes of the last training step are kept as state.

    Args:
        shape: of the weight; needed with `gap` only.
    """

    bits = 2

    def __init__(
        self, scale: bool = True, ste: str = "ste", gap: bool = False, shape: torch.Size | None = None
    ) -> None:
        super().__init__()
        self.scale, self.ste, self.scales = scale, ste, int(scale)
        self.register_buffer("previous", torch.zeros(shape or 0, dtype=torch.int8) if gap else None)

    def forward(self, weight: Tensor) -> Quantized:
        quantized = F.ternary_weight(weight, self.scale, self.ste, self.previous)
        if self.training and self.previous is not None:
            self.previous.copy_(quantized.codes.detach())
        return quantized


class BinaryActivation(Quantizer):
    """See functional.sign_ste."""

    bits = 1
    signed = True

    def __init__(self, ste: str = "saturate") -> None:
        super().__init__()
        self.ste = ste

    def forward(self, x: Tensor) -> Quantized:
        return Quantized(F.sign_ste(x, self.ste), None)


class TernaryActivation(Quantizer):
    """See functional.ternary_activation."""

    bits = 2
    signed = True

    def __init__(self, ste: str = "saturate") -> None:
        super().__init__()
        self.ste = ste

    def forward(self, x: Tensor) -> Quantized:
        return Quantized(F.ternary_activation(x, self.ste), None)
