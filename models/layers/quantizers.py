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
        scales: how many numbers a filter are stored: scales and zero points (0: the scale is a constant of the formula, or 1).
        constants: the same for the whole layer.
        signed: whether the activation codes may be negative, so that no ReLU may stand before it.
    """

    part_of_layer = True
    bits = 32
    scales = 0
    constants = 0
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
        self.previous: Tensor | None
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


class AffineWeight(Quantizer):
    """See functional.affine_weight."""

    def __init__(self, bits: int, symmetric: bool, per_channel: bool) -> None:
        super().__init__()
        self.bits, self.symmetric, self.per_channel = bits, symmetric, per_channel
        numbers = 1 if symmetric else 2  # a scale; asymmetric: a zero point, too
        self.scales, self.constants = (numbers, 0) if per_channel else (0, numbers)

    def forward(self, weight: Tensor) -> Quantized:
        return F.affine_weight(weight, self.bits, self.symmetric, self.per_channel)


class AffineActivation(Quantizer):
    """See functional.affine. The range is a moving average over training batches, until it is frozen.

    Buffers: low, high, the range; seen, whether there is one yet.

    Until a training batch or `set_range` has given it a range, eval mode passes the input on as it is, unquantized.
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

    def grid(self) -> tuple[Tensor, Tensor]:
        """Scale and zero point."""
        return F.affine_range(self.low, self.high, self.bits, self.symmetric)

    @torch.no_grad()
    def set_range(self, low: Tensor, high: Tensor) -> None:
        """Fix the range, as calibration does."""
        self.low.copy_(low)
        self.high.copy_(high)
        self.seen.fill_(1)

    @torch.no_grad()
    def _observe(self, x: Tensor) -> None:
        share = torch.where(self.seen > 0, self.MOMENTUM, 1.0)  # the first batch sets the range
        self.low.lerp_(x.amin().clamp_max(0).to(self.low.dtype), share.to(self.low.dtype))
        self.high.lerp_(x.amax().clamp_min(0).to(self.high.dtype), share.to(self.high.dtype))
        self.seen.fill_(1)

    def forward(self, x: Tensor) -> Quantized:
        if self.training and not self.frozen:
            self._observe(x.detach())
        elif not self.training and not self.seen:  # not asked in training: a GPU would have to wait for the answer
            return Quantized(x, None)
        return F.affine(x, *self.grid(), self.bits, self.symmetric)
