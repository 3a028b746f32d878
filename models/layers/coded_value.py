"""A value between layers that is held in codes: an input of a sum or of a concatenation (--sums int8)."""

from __future__ import annotations

from torch import Tensor, nn

from models.layers.quantizers.base import Quantized, Quantizer


class CodedValue(nn.Module):
    """What an engine that keeps 8 bits between layers has of a value: codes * scale.

    Args:
        quantizer: gives the codes.

    Shapes: any, or `Quantized` codes where layers read the same value; gives a tensor of that shape.
    """

    shares_input = False
    """Whether the quantizer is a layer's, which reads the same value and counts its constants."""

    def __init__(self, quantizer: Quantizer) -> None:
        super().__init__()
        self.input_quantizer = quantizer

    def forward(self, x: Tensor | Quantized) -> Tensor:
        codes, scale = x if isinstance(x, Quantized) else self.input_quantizer(x)
        return codes if scale is None else codes * scale

    def stored_bits(self) -> int:
        """Scale and zero point, 32 bits each."""
        return 0 if self.shares_input else 32 * self.input_quantizer.constants
