"""Quantized convolution and linear layer: conv(input codes, weight codes) * scale + bias.

The input is quantized at the layer, not after the activation before it, as a pool between the two would otherwise mix
codes. (A max-pool commutes with a monotone quantizer, an average does not.)
"""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING

import torch
from torch import Tensor, nn

from engine.numerics import sums
from engine.numerics.reuse import reused
from models.layers import products
from models.layers.products import Layouts, Span
from models.layers.quantizers.base import Quantized, Quantizer

if TYPE_CHECKING:
    from typing_extensions import Self


def combined(a: Tensor | None, w: Tensor | None) -> Tensor | None:
    """Return a product's scale, a scalar or (out, 1, 1); `a` is a scalar, `w` a scalar or (out, 1, 1, 1)."""
    if w is not None and w.ndim:
        w = w.reshape(-1, *(1,) * (w.ndim - 2))
    if a is None or w is None:
        return w if a is None else a
    return a * w


def scaled(output: Tensor, scale: Tensor | None, bias: Tensor | None, behind: int = 2) -> Tensor:
    """Return output * scale + bias, (..., out, *behind).

    Without gradients, on a CPU, the memory of `output` takes it if all have one type. On a GPU a product may be a part of a
    larger tensor.

    Args:
        output: a fresh result that nothing else reads.
        behind: number of axes after the channels: 2 for a convolution, 0 for a linear layer.
    """
    if output.dtype == torch.bfloat16:
        output = output.float()
    if bias is not None:
        bias = bias.reshape(-1, *(1,) * behind)
    kinds = {part.dtype for part in (output, scale, bias) if part is not None}
    into = None if torch.is_grad_enabled() or len(kinds) > 1 or output.is_cuda else output
    if scale is None:
        return output if bias is None else torch.add(output, bias, out=into)
    return torch.mul(output, scale, out=into) if bias is None else torch.addcmul(bias, output, scale, out=into)


def moments(z: Tensor) -> tuple[Tensor, Tensor]:
    """Return the mean and the biased variance of each channel of (B, C, H, W) over all ranks, (C,) each."""
    z = z.float() if z.dtype == torch.bfloat16 else z
    added, count = sums.totals(z.sum((0, 2, 3)), z.numel() // z.shape[1])
    mean = added / count
    # the mean is a constant, as its gradient here is 0: deviations from it sum to 0 (torch.var_mean is slow)
    return mean, sums.total((z - mean.detach()[:, None, None]).square().sum((0, 2, 3))) / count


Moments = Callable[[Tensor], tuple[Tensor, Tensor]]


class _Codes:
    """The common part of both layers: two quantizers, access to codes, the bits they take."""

    weight: Tensor
    bias: Tensor | None
    training: bool
    weight_quantizer: Quantizer
    input_quantizer: Quantizer
    shares_input = False
    """Whether the input's quantizer belongs to another layer that reads the same value and counts its constants."""

    def input_codes(self, x: Tensor | Quantized) -> Quantized:
        """Return the input in codes: those it comes in, for several layers, or those of this layer's quantizer."""
        return x if isinstance(x, Quantized) else self.input_quantizer(x)

    def weight_codes(self) -> tuple[Tensor, Tensor | None]:
        """Return integer codes of the weight, as floats, and their scale (None: 1)."""
        return self.weight_quantizer(self.weight)

    def sources(self) -> list[Tensor]:
        """Return the tensors that `weight_codes` depends on."""
        return [self.weight, *self.weight_quantizer.parameters(), *self.weight_quantizer.buffers()]

    def reused_codes(self) -> tuple[Tensor, Tensor | None, Layouts]:
        """Return `weight_codes` and their layouts, which an evaluation uses again in later batches."""

        def make() -> tuple[Tensor, Tensor | None, Layouts]:
            return *self.weight_codes(), {}

        repeats = not self.training and vars(type(self.weight_quantizer)).get("repeats", False)
        return reused(self, self.sources(), make) if repeats else make()

    def span(self) -> Span | None:
        """Return the function for the input's least and largest code, if input and weight are both codes now."""
        return (
            None
            if self.weight_quantizer.bits == 32 or not self.input_quantizer.codes_now()
            else self.input_quantizer.span
        )

    @property
    def weight_bits(self) -> int:
        return self.weight_quantizer.bits

    def stored_bits(self) -> int:
        """Return the stored bits: codes at their width; scales, zero points and bias at 32, including the input's."""
        quantizer = self.weight_quantizer
        extra = len(self.bias) if self.bias is not None else 0
        extra += quantizer.scales * len(self.weight) + quantizer.constants
        extra += 0 if self.shares_input else self.input_quantizer.constants
        return quantizer.bits * self.weight.numel() + 32 * extra


class QuantConv2d(_Codes, nn.Conv2d):
    """A convolution whose weight and input are quantized; parameters and their names are nn.Conv2d's.

    Shapes: (B, in_channels, H, W) -> (B, out_channels, H', W').
    """

    @classmethod
    def from_float(cls, conv: nn.Conv2d, weight: Quantizer, activation: Quantizer) -> Self:
        """Make a layer with a convolution's geometry that shares its parameters."""
        made = cls(
            conv.in_channels, conv.out_channels, conv.kernel_size, conv.stride, conv.padding,  # type: ignore[arg-type]
            conv.dilation, conv.groups, conv.bias is not None, conv.padding_mode, device="meta",  # type: ignore[arg-type]
        )  # fmt: skip
        made.weight, made.bias = conv.weight, conv.bias
        made.weight_quantizer, made.input_quantizer = weight, activation
        return made.train(conv.training)

    def sums(self, x: Tensor | Quantized, moments: Moments = moments) -> tuple[Tensor, Tensor | None, Tensor | None]:
        """Return the convolution of the codes, and the scale and bias that turn it into numbers.

        Args:
            moments: measures a batch, for layers that fold a batch norm.
        """
        x_codes, x_scale = self.input_codes(x)
        w_codes, w_scale, layouts = self.reused_codes()
        output = products.convolve(self, x_codes, w_codes, self.span(), layouts)
        return output, combined(x_scale, w_scale), self.bias

    def reads_bytes(self, shape: tuple[int, ...]) -> bool:
        """Return whether int8 convolutions multiply this layer's codes for an input of this shape, now and in this precision."""
        w_codes, _, layouts = self.reused_codes()
        return products.in_bytes(self, shape, w_codes, self.span(), layouts) is not None

    def forward(self, x: Tensor | Quantized) -> Tensor:
        return scaled(*self.sums(x))


class QuantLinear(_Codes, nn.Linear):
    """A linear layer whose weight and input are quantized. Shapes: (B, ..., in_features) -> (B, ..., out_features)."""

    bias: nn.Parameter  # torch's type, though it may be None

    @classmethod
    def from_float(cls, linear: nn.Linear, weight: Quantizer, activation: Quantizer) -> Self:
        """Make a layer with a linear layer's geometry that shares its parameters."""
        made = cls(linear.in_features, linear.out_features, linear.bias is not None, device="meta")
        made.weight, made.bias = linear.weight, linear.bias
        made.weight_quantizer, made.input_quantizer = weight, activation
        return made.train(linear.training)

    def forward(self, x: Tensor | Quantized) -> Tensor:
        x_codes, x_scale = self.input_codes(x)
        w_codes, w_scale, _ = self.reused_codes()
        return scaled(products.linear(x_codes, w_codes, self.span()), combined(x_scale, w_scale), self.bias, behind=0)
