"""A value between layers that is kept in codes: an input of a sum or a concatenation (--sums int8)."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from models.layers.quantizers.base import Quantized, Quantizer


class CodedValue(nn.Module):
    """A value as an engine with 8 bits between layers keeps it: codes * scale.

    Args:
        quantizer: computes the codes.

    Shapes: any; the output has the input's shape. The input may be `Quantized` codes if layers read the same value.
    """

    shares_input = False
    """Whether the quantizer belongs to a layer that reads the same value and counts its constants."""

    def __init__(self, quantizer: Quantizer) -> None:
        super().__init__()
        self.input_quantizer = quantizer

    def forward(self, x: Tensor | Quantized) -> Tensor:
        codes, scale = x if isinstance(x, Quantized) else self.input_quantizer(x)
        codes = codes.float() if codes.dtype == torch.bfloat16 else codes  # codes are exact in it, but not their values
        return codes if scale is None else codes * scale

    def stored_bits(self) -> int:
        """Return the bits of scale and zero point, 32 each."""
        return 0 if self.shares_input else 32 * self.input_quantizer.constants
