"""Scale, batch norm, activation and quantizer in one: from the sums of a layer to the codes that the next layer reads.

    z -> mean and variance of each channel -> a, c -> with a max-pool, the selected z -> codes of act((z - mean) a + c)

Every segment takes three passes over memory forward and two backward; with a max-pool one more each, but all that follow
the selection are shorter. Gradients are exact: the gradients of a and c are
sums over a channel, and channels.py derives the gradients of the mean, the variance and all parameters from them.
"""

from __future__ import annotations

import math

import torch
from torch import Tensor

from engine.numerics import precision
from models.fused import channels, loops
from models.fused.channels import on
from models.fused.gradients import Coded, Selected, Told, flattened, measured, moments, rows
from models.fused.grid import ENDS
from models.fused.parts import Parts
from models.fused.settled import NUMBERS
from models.fused.windows import Windows
from models.layers import products
from models.layers.conv_q import QuantConv2d
from models.layers.quantizers.base import Quantized


class Segment(Parts):
    """A replacement for some modules in training and evaluation: it computes the same; parameters and statistics stay in the modules.

    Shapes: the input is that of the first module, the output that of the last.
    """

    def forward(self, x: Tensor | Quantized) -> Tensor | Quantized:
        if not self.training:
            return self.evaluated(x)
        norm, quantizer = self.norm, self.quantizer
        coding = quantizer is None or (quantizer.training and quantizer.ready())
        kind = x.codes.dtype if isinstance(x, Quantized) else x.dtype
        if not coding or (norm is not None and not norm.training) or kind not in (torch.float32, torch.bfloat16):
            return self.apart(x)
        scale = bias = None
        if self.layer is not None:
            x, scale, bias = self._sums(x)
        assert isinstance(x, Tensor)
        flat = rows(x)
        mean, var, factors, *ends = self._channels(flat.detach(), scale, bias)
        selected, shape = None, tuple(x.shape[2:])
        if self.pool is not None:
            windows = Windows.of(self.pool, shape)
            selected, shape = Selected(*loops.selected(flat.detach(), factors[0], windows), windows), windows.after
            if self._asks():
                ends = [*loops.moments(selected.z, mean, True)[2:]]
        rule = NUMBERS
        if quantizer is not None:
            features = x.shape[1] * math.prod(shape)
            rule = quantizer.rule(features, lambda: self._reach(mean, factors, *ends))
        coding = rule.kind != "number"
        half = precision.codes_in_bf16(x.device) if coding else torch.is_autocast_enabled(x.device.type)
        dtype, step = torch.bfloat16 if half else torch.float32, rule.step if rule.learned else None
        told = Told(mean, var, factors, None if norm is None else norm.eps, rule, self.act, dtype, selected)
        of_norm = (norm.weight, norm.bias) if norm is not None else (None, None)
        out = Coded.apply(flat, told, step, scale, bias, *of_norm)
        out = out.reshape(len(x), *shape, -1).permute(0, 3, 1, 2)
        return Quantized(out, on(rule.scale, x.device)) if coding else out

    def _sums(self, x: Tensor | Quantized) -> tuple[Tensor, Tensor | None, Tensor | None]:
        if isinstance(self.layer, QuantConv2d):
            return self.layer.sums(x, moments)
        assert self.layer is not None
        assert isinstance(x, Tensor)
        return products.convolution(self.layer, x, self.layer.weight), None, self.layer.bias

    @torch.no_grad()
    def _channels(self, flat: Tensor, scale: Tensor | None, bias: Tensor | None) -> tuple[Tensor, ...]:
        """Return each channel's mean and variance in this batch, or 0 and 1 without a norm; a and c, (2, channels);
        and each channel's smallest and largest z, if the quantizer asks for them and no pool selects some.
        """
        asks, s = self._asks() and self.pool is None, flattened(scale)
        if self.norm is not None:
            if len(flat) < 2:  # as torch's batch norm; one that is folded into the layer takes it
                raise ValueError("a batch norm cannot be trained on one number a channel")
            k, (first, second, *ends) = measured(flat, asks)
            return *channels.normed(first, second, k, len(flat), s, bias, self.norm), *ends
        zero = flat.new_zeros(flat.shape[1], dtype=torch.float32)
        ends = [*loops.moments(flat, zero, True)[2:]] if asks else []
        return zero, zero + 1, channels.plain(zero, s, bias), *ends

    def _asks(self) -> bool:
        return self.quantizer is not None and self.quantizer.asks_for_ends()

    @torch.no_grad()
    def _reach(self, mean: Tensor, factors: Tensor, low: Tensor, high: Tensor) -> tuple[Tensor, Tensor]:
        """Return the smallest and the largest number that the quantizer reads."""
        return channels.reach(mean, factors, low, high, *ENDS[self.act])
