"""The modules that a segment replaces, and what they compute in evaluation: in one pass over memory where that gives their
bits, else module by module.
"""

from __future__ import annotations

import math
from collections.abc import Sequence

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from engine.numerics import precision
from models.fused.channels import on
from models.fused.grid import Act
from models.fused.layout import is_last
from models.fused.settled import NUMBERS, settled
from models.fused.windows import Windows
from models.layers.conv_q import QuantConv2d, scaled
from models.layers.quantizers.base import Quantized, Quantizer, Rule


class Parts(nn.Module):
    """Modules that stand one behind the other. Parameters and statistics stay in them.

    Args:
        layer: the convolution before, quantized or not, if nothing else reads its sums.
        norm: the batch norm, if there is one.
        pool: a max-pool before or behind the activation: both give the same. Only on a CPU.
        quantizer: the input quantizer of the layers behind, if they read nothing but its codes.
        readers: the convolutions behind, if nothing else reads these codes.
    """

    def __init__(
        self, layer: nn.Conv2d | None, norm: nn.BatchNorm2d | None, act: Act, quantizer: Quantizer | None,
        pool: nn.MaxPool2d | None = None, readers: Sequence[QuantConv2d] = (),
    ) -> None:  # fmt: skip
        super().__init__()
        self.layer, self.norm, self.act, self.pool, self.quantizer = layer, norm, act, pool, quantizer
        self._readers = (*readers,)  # in a tuple, so that nn.Module does not register them
        self._known: dict[tuple[int, ...], bool] = {}  # whether readers take bytes, by the shape of their input

    def evaluated(self, x: Tensor | Quantized) -> Tensor | Quantized:
        """Compute what the modules compute in evaluation, bit for bit."""
        z, scale, bias = self._raw(x)
        if not self._fits(z):
            return self.behind(scaled(z, scale, bias) if isinstance(self.layer, QuantConv2d) else z)
        quantizer = self.quantizer
        rule = NUMBERS if quantizer is None else quantizer.rule(math.prod(z.shape[1:]), _not_asked_for)
        out = settled(z, scale, bias, self.norm, self.act, rule, self._type(z, rule), self.pool)
        return out if rule.kind == "number" else Quantized(out, on(rule.scale, z.device))

    def apart(self, x: Tensor | Quantized) -> Tensor | Quantized:
        """Compute the same, module by module."""
        x = x if self.layer is None else self.layer(x)
        assert isinstance(x, Tensor)
        return self.behind(x)

    def behind(self, y: Tensor) -> Tensor | Quantized:
        """Compute what follows the layer, module by module."""
        y = y if self.norm is None else self.norm(y)
        if self.act != "none":
            y = F.relu(y) if self.act == "relu" else F.relu6(y)
        y = y if self.pool is None else self.pool(y)
        return y if self.quantizer is None else self.quantizer(y)

    def _raw(self, x: Tensor | Quantized) -> tuple[Tensor, Tensor | None, Tensor | None]:
        """Return what the layer gives, and the scale and bias that are still to be applied."""
        if isinstance(self.layer, QuantConv2d):
            return self.layer.sums(x)
        z = x if self.layer is None else self.layer(x)
        assert isinstance(z, Tensor)
        return z, None, None

    def _fits(self, z: Tensor) -> bool:
        """Return whether one pass has the modules' bits and strides. With other strides torch adds in another order."""
        norm, quantizer = self.norm, self.quantizer
        settles = norm is None or (not norm.training and norm.running_mean is not None)
        coding = quantizer is None or (not quantizer.training and quantizer.ready() and not quantizer.asks_for_ends())
        exact = precision.in_force() == "exact" and not torch.is_grad_enabled() and z.dtype == torch.float32
        return settles and coding and exact and is_last(z)

    def _type(self, z: Tensor, rule: Rule) -> torch.dtype:
        """Return the type of the results: fp32, as the modules', or bytes where int8 convolutions alone read them."""
        if self.quantizer is None or rule.kind == "number" or not self._readers:
            return torch.float32
        size = (z.shape[2], z.shape[3])
        shape = (*z.shape[:2], *(size if self.pool is None else Windows.of(self.pool, size).after))
        if shape not in self._known:  # the weights stay the same in an evaluation
            self._known[shape] = all(reader.reads_bytes(shape) for reader in self._readers)
        if not self._known[shape]:
            return torch.float32
        least, most = self.quantizer.span()
        if least >= 0 or (self.act != "none" and rule.kind in ("round", "share")):  # steps are positive: so are codes
            return torch.uint8
        return torch.int8 if least >= -128 and most <= 127 else torch.float32


def _not_asked_for() -> tuple[Tensor, Tensor]:
    raise RuntimeError("a quantizer measures the range of an evaluation")
