"""From the sums of a layer to the codes that the next one reads: scale, batch norm, activation and quantizer in one.

    z -> mean and variance of each channel -> a, c -> codes of act((z - k) a + c)

Three passes over memory forward and two backward, whatever stands between. Gradients are exact: those of a and c are sums over a
channel, and autograd goes on from there to the mean, the variance and all parameters.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from engine.system import precision
from models.fused import loops
from models.fused.gradients import ENDS, Act, Coded, measured, moments, rows
from models.layers.conv_q import QuantConv2d
from models.layers.fold import move_statistics
from models.layers.quantizers.base import Quantized, Quantizer, Rule

NUMBERS = Rule("number")


class Segment(nn.Module):
    """Computes in training what these modules compute one after the other; parameters and statistics stay theirs.

    Args:
        layer: the convolution before, if its sums reach nothing else.
        norm: the batch norm, if there is one.
        quantizer: of the layers behind, if these read nothing but its codes.

    Shapes: as those of the first and the last of them.
    """

    def __init__(
        self, layer: QuantConv2d | None, norm: nn.BatchNorm2d | None, act: Act, quantizer: Quantizer | None
    ) -> None:
        super().__init__()
        self.layer, self.norm, self.act, self.quantizer = layer, norm, act, quantizer

    def forward(self, x: Tensor | Quantized) -> Tensor | Quantized:
        norm, quantizer = self.norm, self.quantizer
        coding = quantizer is None or (quantizer.training and quantizer.ready())
        kind = x.codes.dtype if isinstance(x, Quantized) else x.dtype
        if not coding or (norm is not None and not norm.training) or kind not in (torch.float32, torch.bfloat16):
            return self._apart(x)
        scale = bias = None
        if self.layer is not None:
            x, scale, bias = self.layer.sums(x, moments)
        assert isinstance(x, Tensor)
        flat = rows(x)
        mean, var, *ends = self._statistics(flat.detach())
        learned = (scale, bias, *((norm.weight, norm.bias) if norm is not None else (None, None)))
        rule = NUMBERS
        if quantizer is not None:
            rule = quantizer.rule(x[0].numel(), lambda: self._reach(mean, var, ends, learned))
        coding = rule.kind != "number"
        half = precision.in_force() == "bf16" if coding else torch.is_autocast_enabled(x.device.type)
        dtype, step = torch.bfloat16 if half else torch.float32, rule.step if rule.learned else None
        out = Coded.apply(flat, mean, var, self._factors, rule, self.act, dtype, step, *learned)
        out = out.reshape(len(x), *x.shape[2:], -1).permute(0, 3, 1, 2)
        if norm is not None:
            self._keep(norm, mean, var, len(flat), scale, bias)
        return Quantized(out, _on(rule.scale, x.device)) if coding else out

    def _apart(self, x: Tensor | Quantized) -> Tensor | Quantized:
        """The same, module by module."""
        if self.layer is not None:
            x = self.layer(x)
        assert isinstance(x, Tensor)
        y: Tensor = x if self.norm is None else self.norm(x)
        if self.act != "none":
            y = F.relu(y) if self.act == "relu" else F.relu6(y)
        return y if self.quantizer is None else self.quantizer(y)

    def _statistics(self, flat: Tensor) -> tuple[Tensor, ...]:
        """Of each channel mean and variance of this batch, or 0 and 1 where no norm asks; its ends, where a quantizer does."""
        asks = self.quantizer is not None and self.quantizer.asks_for_ends()
        if self.norm is not None:
            return measured(flat, asks)
        zero = flat.new_zeros(flat.shape[1], dtype=torch.float32)
        return (zero, zero + 1, *(loops.moments(flat, zero, True)[2:] if asks else ()))

    @torch.no_grad()
    def _keep(
        self, norm: nn.BatchNorm2d, mean: Tensor, var: Tensor, count: int, scale: Tensor | None, bias: Tensor | None
    ) -> None:
        """Move the running statistics of the norm, which are of what it reads."""
        if scale is not None:
            mean, var = mean * scale.reshape(-1), var * scale.reshape(-1).square()
        move_statistics(norm, mean if bias is None else mean + bias, var, count)

    def _factors(
        self,
        mean: Tensor,
        var: Tensor,
        scale: Tensor | None,
        bias: Tensor | None,
        gamma: Tensor | None,
        beta: Tensor | None,
    ) -> tuple[Tensor, Tensor]:
        """a and c: what numbers less their mean are multiplied by, and what is added then. A norm takes a bias away."""
        size = torch.ones_like(mean) if scale is None else scale.reshape(-1).expand_as(mean)
        if self.norm is None:
            return size, torch.zeros_like(mean) if bias is None else bias + torch.zeros_like(mean)
        factor = size * (var * size.square() + self.norm.eps).rsqrt()
        factor = factor if gamma is None else gamma * factor
        shift = factor * (mean.detach() - mean)
        return factor, shift if beta is None else shift + beta

    @torch.no_grad()
    def _reach(
        self, mean: Tensor, var: Tensor, ends: list[Tensor], learned: tuple[Tensor | None, ...]
    ) -> tuple[Tensor, Tensor]:
        """The least and the largest number that the quantizer reads."""
        a, c = self._factors(mean, var, *learned)
        x = torch.stack([(end - mean) * a + c for end in ends]).clamp(*ENDS[self.act])
        return x.amin(), x.amax()


def _on(scale: Tensor | float | None, device: torch.device) -> Tensor | None:
    return torch.full((), scale, device=device) if isinstance(scale, float) else scale
