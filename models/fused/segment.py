"""Scale, batch norm, activation and quantizer in one: from the sums of a layer to the codes that the next layer reads.

    z -> mean and variance of each channel -> a, c -> with a max-pool, the selected z -> codes of act((z - mean) a + c)

Every segment takes three passes over memory forward and two backward; with a max-pool one more each, but all that follow
the selection are shorter. Gradients are exact: the gradients of a and c are
sums over a channel, and channels.py derives the gradients of the mean, the variance and all parameters from them.
"""

from __future__ import annotations

import math
from collections.abc import Sequence

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from engine.numerics import precision
from models.fused import channels, loops
from models.fused.channels import constant
from models.fused.gradients import Coded, Selected, Told, flattened, measured, moments, rows
from models.fused.grid import ENDS, Act
from models.fused.settled import NUMBERS, settled
from models.fused.windows import Windows
from models.layers import eight_bits, products
from models.layers.conv_q import QuantConv2d
from models.layers.quantizers.base import Quantized, Quantizer, Rule

_KINDS = (torch.float32, torch.bfloat16)


class Segment(nn.Module):
    """A replacement for some modules in training: it computes the same; parameters and statistics stay in the modules.

    Args:
        layer: the convolution before, quantized or not, if nothing else reads its sums.
        norm: the batch norm, if there is one.
        pool: a max-pool before or behind the activation: both give the same. Only on a CPU.
        quantizer: the input quantizer of the layers behind, if they read nothing but its codes.
        readers: the convolutions behind, if nothing else reads these codes.

    Shapes: the input is that of the first module, the output that of the last.
    """

    def __init__(
        self, layer: nn.Conv2d | None, norm: nn.BatchNorm2d | None, act: Act, quantizer: Quantizer | None,
        pool: nn.MaxPool2d | None = None, readers: Sequence[QuantConv2d] = (),
    ) -> None:  # fmt: skip
        super().__init__()
        self._readers = (*readers,)  # in a tuple, so that nn.Module does not register them
        self.layer, self.norm, self.act, self.pool, self.quantizer = layer, norm, act, pool, quantizer

    def forward(self, x: Tensor | Quantized) -> Tensor | Quantized:
        if not self.training:
            return self._evaluated(x)
        norm, quantizer = self.norm, self.quantizer
        coding = quantizer is None or (quantizer.training and quantizer.ready())
        if not coding or (norm is not None and not norm.training) or _kind(x) not in _KINDS:
            return self._apart(x)
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
        return Quantized(out, _on(rule.scale, x.device)) if coding else out

    def _evaluated(self, x: Tensor | Quantized) -> Tensor | Quantized:
        """Compute the same in evaluation, bit for bit: in one pass over memory, or else module by module."""
        norm, quantizer, layer = self.norm, self.quantizer, self.layer
        settles = norm is None or (not norm.training and norm.running_mean is not None)
        coding = quantizer is None or (not quantizer.training and quantizer.ready() and not quantizer.asks_for_ends())
        exact = precision.in_force() == "exact" and not torch.is_grad_enabled()
        kinds = eight_bits.TYPES if isinstance(x, Quantized) else (torch.float32,)
        if not settles or not coding or not exact or _kind(x) not in kinds:
            return self._apart(x)
        scale = bias = None
        if isinstance(layer, QuantConv2d):
            x, scale, bias = layer.sums(x)
        elif layer is not None:
            x = layer(x)
        assert isinstance(x, Tensor)
        rule = NUMBERS if quantizer is None else quantizer.rule(x[0].numel(), _not_asked_for)
        out = settled(x, scale, bias, norm, self.act, rule, self._type(x, rule), self.pool)
        return out if rule.kind == "number" else Quantized(out, _on(rule.scale, x.device))

    def _type(self, x: Tensor, rule: Rule) -> torch.dtype:
        """Return the type of an evaluation's results: fp32, as the modules', or bytes if int8 convolutions read codes."""
        if self.quantizer is None or rule.kind == "number" or not self._readers:
            return torch.float32
        least, most = codes = self.quantizer.span()
        if not all(reader.span() and eight_bits.fits(reader, x, codes) for reader in self._readers):
            return torch.float32
        if least >= 0 or (self.act != "none" and rule.kind in ("round", "share")):
            return torch.uint8
        return torch.int8 if least >= -128 and most <= 127 else torch.float32

    def _sums(self, x: Tensor | Quantized) -> tuple[Tensor, Tensor | None, Tensor | None]:
        if isinstance(self.layer, QuantConv2d):
            return self.layer.sums(x, moments)
        assert self.layer is not None
        assert isinstance(x, Tensor)
        return products.convolution(self.layer, x, self.layer.weight), None, self.layer.bias

    def _apart(self, x: Tensor | Quantized) -> Tensor | Quantized:
        """Compute the same, module by module."""
        if self.layer is not None:
            x = self.layer(x)
        assert isinstance(x, Tensor)
        y: Tensor = x if self.norm is None else self.norm(x)
        if self.act != "none":
            y = F.relu(y) if self.act == "relu" else F.relu6(y)
        y = y if self.pool is None else self.pool(y)
        return y if self.quantizer is None else self.quantizer(y)

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


def _not_asked_for() -> tuple[Tensor, Tensor]:
    raise RuntimeError("a quantizer measures the range of an evaluation")


def _kind(x: Tensor | Quantized) -> torch.dtype:
    return x.codes.dtype if isinstance(x, Quantized) else x.dtype


def _on(scale: Tensor | float | None, device: torch.device) -> Tensor | None:
    return constant(scale, device) if isinstance(scale, float) else scale
