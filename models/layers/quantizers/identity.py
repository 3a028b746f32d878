"""The quantizer `float`: 32 bits, unquantized."""

from __future__ import annotations

from torch import Tensor

from models.layers.quantizers.base import Quantized, Quantizer
from models.layers.quantizers.kinds import Kind, Traits, register

TRAITS = Traits(name="float", bits=(32,), prefix="", mixes=True)


class Identity(Quantizer):
    """A quantizer that returns its input as codes."""

    def forward(self, x: Tensor) -> Quantized:
        return Quantized(x, None)


register(Kind(TRAITS, weight=lambda spec, weight: Identity(), activation=lambda spec, signed: Identity(), codes=None))
