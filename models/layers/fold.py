"""Fold batch norm into the layer before it: the algebra on tensors, and the layers that hold the result.

bn_merge/merge.py decides which layers of a network are folded, and how.
"""

from __future__ import annotations

from typing import NamedTuple

import torch
from torch import Tensor, nn
from torch.nn.modules.batchnorm import _BatchNorm

from engine.numerics.reuse import reused
from models.layers import products
from models.layers.conv_q import scaled
from models.layers.products import Layouts, Span
from models.layers.quantizers.base import Quantized, Quantizer
from models.layers.quantizers.identity import Identity


class Affine(NamedTuple):
    """multiplier * z + shift, with one of each for a channel."""

    multiplier: Tensor
    shift: Tensor


class Threshold(NamedTuple):
    """sign(flip * z + bias), with one of each for a channel; flip is +1 or -1."""

    flip: Tensor
    bias: Tensor


def normalizing(norm: _BatchNorm, mean: Tensor, var: Tensor) -> Affine:
    """Return a BN with these statistics, gamma (z - mean) / sigma + beta. A missing gamma is 1, a missing beta 0.

    It has a gradient for gamma, beta, mean and variance. Shapes: (C,) each.
    """
    multiplier = (var + norm.eps).rsqrt()
    if norm.weight is not None:
        multiplier = norm.weight * multiplier
    return Affine(multiplier, -mean * multiplier if norm.bias is None else norm.bias - mean * multiplier)


def in_eval(norm: _BatchNorm) -> Affine:
    """Return what a BN computes in eval mode, without a gradient.

    Raises:
        ValueError: if it keeps no running statistics.
    """
    if norm.running_mean is None or norm.running_var is None:
        raise ValueError("a batch norm without running statistics cannot be folded")
    with torch.no_grad():
        return normalizing(norm, norm.running_mean, norm.running_var)


def threshold(bn: Affine, scale: Tensor, bias: Tensor, reach: Tensor) -> Threshold:
    """Return the binary fold: sign(BN(scale * z + bias)) = sign(flip * z + bias').

    Derivation: BN(scale z + bias) = m (scale z + bias) + s. Dividing by |m| scale > 0 keeps the sign, so
    flip = sgn(m) and bias' = (m bias + s) / (|m| scale). Where m scale = 0 (gamma = 0, or a filter of zeros)
    the channel is constant: bias' is beyond any |z|, with the sign of m bias + s.

    Args:
        scale, bias: the layer's, (out,), with scale >= 0.
        reach: the largest possible |z|, (out,).
    """
    constant = bn.multiplier * bias + bn.shift
    slope = bn.multiplier.abs() * scale
    moving = slope > 0
    flip = torch.where(moving & (bn.multiplier < 0), -1.0, 1.0).to(scale.dtype)
    beyond = torch.where(constant >= 0, reach + 1, -reach - 1)
    bias = constant / torch.where(moving, slope, 1.0)
    return Threshold(flip, torch.where(moving, bias.nan_to_num(), beyond))  # a tiny slope overflows: keep it finite


class Flip(nn.Module):
    """Flips the sign of some channels: the rest of a BN that was after a max-pool. (B, C, H, W) -> the same."""

    def __init__(self, flip: Tensor) -> None:
        super().__init__()
        self.flip: Tensor
        self.register_buffer("flip", flip.to(torch.int8))

    def forward(self, x: Tensor) -> Tensor:
        return x * self.flip.to(x.dtype).reshape(-1, *(1,) * (x.ndim - 2))

    def stored_bits(self) -> int:
        return self.flip.numel()


def stored(codes: Tensor) -> Tensor:
    """Return codes in the narrowest type that holds them: int8, int16, or unchanged if they are not integers."""
    if not torch.equal(codes, codes.round()) or codes.abs().max() > 32767:
        return codes.detach().clone()
    return codes.detach().to(torch.int8 if codes.abs().max() <= 127 else torch.int16)


class _Merged(nn.Module):
    """A layer with codes, one scale and one bias for each filter, and nothing to train.

    Buffers: codes (out, in / groups, ...), scale (out,) or None for 1, bias (out,).
    """

    input_quantizer: Quantizer
    shares_input = False
    codes: Tensor
    scale: Tensor | None
    bias: Tensor

    def take_codes(
        self, like: nn.Module, codes: Tensor, scale: Tensor | None, bias: Tensor, bits: int, quantizer: Quantizer
    ) -> None:
        """Replace the parameters by these codes, scale and bias."""
        weights = getattr(like, "weight_quantizer", None) or Identity()
        self._zero_points = weights.zero_points * (len(codes) if weights.scales else 1)
        del self.weight, self.bias
        self.register_buffer("codes", codes)
        self.register_buffer("scale", scale)
        self.register_buffer("bias", bias)
        self.weight_bits, self.input_quantizer = bits, quantizer
        self.shares_input = getattr(like, "shares_input", False)

    def input_codes(self, x: Tensor | Quantized) -> Tensor:
        """Return the input's codes: those it comes in, for several layers, or those of this layer's quantizer."""
        return (x if isinstance(x, Quantized) else self.input_quantizer(x)).codes

    def span(self) -> Span | None:
        """Return the function for the input's least and largest code, if input and weight are both codes now."""
        return (
            None
            if self.codes.is_floating_point() or not self.input_quantizer.codes_now()
            else self.input_quantizer.span
        )

    def weight_codes(self) -> tuple[Tensor, Tensor | None]:
        """Return integer codes of the weight and the output's scale, which includes the input's scale and the BN."""
        return self.codes, self.scale

    def values(self) -> int:
        """Return the number of values in the layer."""
        return self.codes.numel() + self.bias.numel() + (0 if self.scale is None else self.scale.numel())

    def stored_bits(self) -> int:
        """Return the stored bits: codes at their width; scales, biases and zero points at 32, including the input's.

        Asymmetric codes are stored here minus their zero point, which may make them one bit wider.
        """
        count = self.codes.numel()
        numbers = self.values() - count + self._zero_points
        numbers += 0 if self.shares_input else self.input_quantizer.constants
        return self.weight_bits * count + 32 * numbers


class MergedConv2d(_Merged, nn.Conv2d):
    """conv(input codes, codes) * scale + bias. Shapes as nn.Conv2d."""

    bias: Tensor

    def __init__(
        self, like: nn.Conv2d, codes: Tensor, scale: Tensor | None, bias: Tensor, bits: int,
        quantizer: Quantizer | None = None,
    ) -> None:  # fmt: skip
        super().__init__(
            like.in_channels, like.out_channels, like.kernel_size, like.stride, like.padding,  # type: ignore[arg-type]
            like.dilation, like.groups, True, like.padding_mode, device="meta",  # type: ignore[arg-type]
        )  # fmt: skip
        self.take_codes(like, codes, scale, bias, bits, quantizer or Identity())

    def forward(self, x: Tensor | Quantized) -> Tensor:
        x = self.input_codes(x)
        codes, layouts = reused((self, x.dtype), [self.codes], lambda: (self.codes.to(x.dtype), Layouts()))
        found = products.convolve(self, x, codes, self.span(), layouts)
        return scaled(found, _per_channel(self.scale, 2), self.bias)


class MergedLinear(_Merged, nn.Linear):
    """linear(input codes, codes) * scale + bias. Shapes as nn.Linear."""

    bias: Tensor  # type: ignore[assignment]  # a buffer, though torch's type is Parameter

    def __init__(
        self, like: nn.Linear, codes: Tensor, scale: Tensor | None, bias: Tensor, bits: int,
        quantizer: Quantizer | None = None,
    ) -> None:  # fmt: skip
        super().__init__(like.in_features, like.out_features, True, device="meta")
        self.take_codes(like, codes, scale, bias, bits, quantizer or Identity())

    def forward(self, x: Tensor | Quantized) -> Tensor:
        x = self.input_codes(x)
        codes = reused((self, x.dtype), [self.codes], lambda: self.codes.to(x.dtype))
        return scaled(products.linear(x, codes, self.span()), self.scale, self.bias, behind=0)


def merged(
    like: nn.Conv2d | nn.Linear, codes: Tensor, scale: Tensor | None, bias: Tensor, bits: int,
    quantizer: Quantizer | None = None,
) -> MergedConv2d | MergedLinear:  # fmt: skip
    """Return the merged layer that replaces `like`."""
    if isinstance(like, nn.Conv2d):
        return MergedConv2d(like, codes, scale, bias, bits, quantizer)
    return MergedLinear(like, codes, scale, bias, bits, quantizer)


def as_float(layer: MergedConv2d | MergedLinear) -> nn.Conv2d | nn.Linear:
    """Return PyTorch's own layer that computes the same as a merged layer with float weights and a float input."""
    assert layer.codes.is_floating_point()
    assert isinstance(layer.input_quantizer, Identity)
    scale = _per_channel(layer.scale, layer.codes.ndim - 1)
    weight = layer.codes if scale is None else layer.codes * scale
    with torch.device("meta"):
        made = (
            nn.Conv2d(
                layer.in_channels, layer.out_channels, layer.kernel_size, layer.stride, layer.padding,  # type: ignore[arg-type]
                layer.dilation, layer.groups, True, layer.padding_mode,  # type: ignore[arg-type]
            )
            if isinstance(layer, nn.Conv2d)
            else nn.Linear(layer.in_features, layer.out_features)
        )  # fmt: skip
    made.weight, made.bias = nn.Parameter(weight, False), nn.Parameter(layer.bias, False)
    return made.train(layer.training)


def _per_channel(scale: Tensor | None, axes: int) -> Tensor | None:
    return None if scale is None else scale.reshape(-1, *(1,) * axes)
