"""32 bits: no quantizer at all, under the name float."""

from __future__ import annotations

from torch import Tensor

from models.layers.quantizers.base import Quantized, Quantizer
from models.layers.quantizers.kinds import Kind, Traits, register

TRAITS = Traits(name="float", bits=(32,), prefix="", mixes=True)


class Identity(Quantizer):
    """The tensor is its own code."""

    def forward(self, x: Tensor) -> Quantized:
        return Quantized(x, None)


register(Kind(TRAITS, weight=lambda spec, weight: Identity(), activation=lambda spec, signed: Identity(), codes=None))
