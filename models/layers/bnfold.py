"""A quantized convolution with its batch norm folded in while it trains, and the INT8 layers under their old names.

What is quantized is the folded weight, the one that is deployed (Jacob et al., arXiv 1712.05877, section 3.2).
"""

from __future__ import annotations

import torch
from torch import Tensor, nn

from models.layers.conv_q import QuantConv2d, combined, convolve, scaled
from models.layers.quantizers import AffineActivation, AffineWeight, Identity, Quantizer


class FoldedNorm(nn.BatchNorm2d):
    """A batch norm whose work is done by the convolution before it: keeps the parameters, passes its input on."""

    running_mean: Tensor  # never None: without statistics there is nothing to fold
    running_var: Tensor
    num_batches_tracked: Tensor

    def forward(self, x: Tensor) -> Tensor:
        return x

    @classmethod
    def from_norm(cls, norm: nn.BatchNorm2d) -> FoldedNorm:
        """Take over a batch norm's very parameters and statistics."""
        made = cls(norm.num_features, norm.eps, norm.momentum, norm.affine, norm.track_running_stats, device="meta")
        made._parameters.update(norm._parameters)
        made._buffers.update(norm._buffers)
        return made.train(norm.training)


class BNFoldConv2d(QuantConv2d):
    """conv(input codes, codes of w * gamma / sigma) * scale + (beta - mean * gamma / sigma).

    In training, a first pass with the unfolded weight gives the batch's mean and sigma, exactly as BN would see
    them, and they move the running statistics; in eval those are used. gamma of 0 and below 0 are ordinary.
    Shapes as nn.Conv2d.
    """

    _norm: tuple[FoldedNorm]

    def attach(self, norm: FoldedNorm) -> BNFoldConv2d:
        """Name the batch norm to fold; it stays where it is, so that state-dict keys do not change."""
        self._norm = (norm,)  # a tuple: not a child of this module
        return self

    def folded(self, mean: Tensor, var: Tensor) -> tuple[Tensor, Tensor]:
        """Weight and bias with a BN of these statistics in them."""
        norm = self._norm[0]
        factor = (var + norm.eps).rsqrt()
        if norm.weight is not None:
            factor = norm.weight * factor
        bias = -mean * factor if norm.bias is None else norm.bias - mean * factor
        if self.bias is not None:
            bias = bias + self.bias * factor
        return self.weight * factor.reshape(-1, 1, 1, 1), bias

    def weight_codes(self) -> tuple[Tensor, Tensor | None]:
        """Codes and scale of the weight folded with the running statistics."""
        norm = self._norm[0]
        return self.weight_quantizer(self.folded(norm.running_mean, norm.running_var)[0])

    def folded_bias(self) -> Tensor:
        """The bias that goes with weight_codes, (out,)."""
        norm = self._norm[0]
        return self.folded(norm.running_mean, norm.running_var)[1]

    def _statistics(self, x: Tensor) -> tuple[Tensor, Tensor]:
        norm = self._norm[0]
        if not self.training:
            return norm.running_mean, norm.running_var
        plain = convolve(self, x, self.weight, self.bias)
        count = plain.numel() // plain.shape[1]
        mean = plain.sum((0, 2, 3)) / count
        # the mean is a constant here: deviations from it sum to 0, and so would its gradient (torch.var_mean is slow)
        var = (plain - mean.detach()[:, None, None]).square().sum((0, 2, 3)) / count
        with torch.no_grad():
            norm.num_batches_tracked += 1
            share = norm.momentum if norm.momentum is not None else 1 / float(norm.num_batches_tracked)
            norm.running_mean.lerp_(mean, share)
            norm.running_var.lerp_(var * count / max(count - 1, 1), share)
        return mean, var

    def forward(self, x: Tensor) -> Tensor:
        x_codes, x_scale = self.input_quantizer(x)
        values = x_codes if x_scale is None else x_codes * x_scale
        weight, bias = self.folded(*self._statistics(values))
        w_codes, w_scale = self.weight_quantizer(weight)
        return scaled(convolve(self, x_codes, w_codes), combined(x_scale, w_scale), bias)


def _quantizers(a_bits: int, w_bits: int, q_type: int, first_layer: int) -> tuple[Quantizer, Quantizer]:
    if q_type not in (0, 1):
        raise ValueError(f"q_type {q_type} is neither 0 (symmetric) nor 1 (asymmetric)")
    if first_layer not in (0, 1):
        raise ValueError(f"first_layer {first_layer} is neither 0 nor 1")
    for name, bits in (("a_bits", a_bits), ("w_bits", w_bits)):
        if type(bits) is not int or bits not in (*range(2, 9), 32):
            raise ValueError(f"{name} {bits!r} is neither a whole number from 2 to 8 nor 32 (float)")
    weight = Identity() if w_bits == 32 else AffineWeight(w_bits, q_type == 0, per_channel=True)
    activation = Identity() if first_layer or a_bits == 32 else AffineActivation(a_bits, q_type == 0)
    return weight, activation


class Conv2d_Q(QuantConv2d):
    """An INT8 convolution under the original's name and keyword arguments.

    Args:
        a_bits, w_bits: of the input and the weight, 2 to 8 each, or 32: float.
        q_type: 0 symmetric, 1 asymmetric.
        first_layer: 1 leaves the input (the picture) as it is, 0 codes it.

    The input's range is measured while training; until then, evaluation leaves the input as it is.

    Raises:
        ValueError: for other bits, another q_type or another first_layer.
    """

    def __init__(
        self, in_channels: int, out_channels: int, kernel_size: int, stride: int = 1, padding: int = 0,
        dilation: int = 1, groups: int = 1, bias: bool = True, a_bits: int = 8, w_bits: int = 8,
        q_type: int = 1, first_layer: int = 0,
    ) -> None:  # fmt: skip
        super().__init__(in_channels, out_channels, kernel_size, stride, padding, dilation, groups, bias)
        self.weight_quantizer, self.input_quantizer = _quantizers(a_bits, w_bits, q_type, first_layer)


class BNFold_Conv2d_Q(BNFoldConv2d):
    """An INT8 convolution with a batch norm of its own (child `bn`) folded in; arguments as Conv2d_Q.

    Args:
        momentum: of the batch norm's statistics.

    Raises:
        ValueError: as Conv2d_Q.
    """

    def __init__(
        self, in_channels: int, out_channels: int, kernel_size: int, stride: int = 1, padding: int = 0,
        dilation: int = 1, groups: int = 1, bias: bool = False, eps: float = 1e-5, momentum: float = 0.01,
        a_bits: int = 8, w_bits: int = 8, q_type: int = 1, first_layer: int = 0,
    ) -> None:  # fmt: skip
        super().__init__(in_channels, out_channels, kernel_size, stride, padding, dilation, groups, bias)
        self.weight_quantizer, self.input_quantizer = _quantizers(a_bits, w_bits, q_type, first_layer)
        self.bn = FoldedNorm(out_channels, eps, momentum)
        self.attach(self.bn)
