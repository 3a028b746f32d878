"""A quantized convolution with its batch norm folded in while it trains.

The folded weight is quantized, as it is the one that is deployed (Jacob et al., arXiv 1712.05877, section 3.2).
"""

from __future__ import annotations

import torch
from torch import Tensor, nn

from engine.numerics.norm_statistics import move_statistics
from engine.system import ranks
from models.layers import products
from models.layers.conv_q import Moments, QuantConv2d, combined, moments
from models.layers.fold import normalizing
from models.layers.products import Layouts
from models.layers.quantizers.base import Quantized


class FoldedNorm(nn.BatchNorm2d):
    """A batch norm folded into the convolution before it: it keeps its parameters and passes its input on."""

    running_mean: Tensor  # never None: a norm without statistics cannot be folded
    running_var: Tensor
    num_batches_tracked: Tensor

    def forward(self, x: Tensor) -> Tensor:
        return x

    @classmethod
    def from_norm(cls, norm: nn.BatchNorm2d) -> FoldedNorm:
        """Make a FoldedNorm that shares a batch norm's parameters and statistics."""
        made = cls(norm.num_features, norm.eps, norm.momentum, norm.affine, norm.track_running_stats, device="meta")
        made._parameters.update(norm._parameters)
        made._buffers.update(norm._buffers)
        return made.train(norm.training)


class BNFoldConv2d(QuantConv2d):
    """conv(input codes, codes of w * gamma / sigma) * scale + (beta - mean * gamma / sigma).

    In training, a first pass with the unfolded weight gives the batch's mean and sigma, exactly as BN would see
    them. They update the running statistics, which eval mode uses. gamma may be 0 or negative. A norm in eval mode is
    frozen: the layer trains with its running statistics, and they stay.
    Shapes as nn.Conv2d.
    """

    _norm: tuple[FoldedNorm]

    def attach(self, norm: FoldedNorm) -> BNFoldConv2d:
        """Set the batch norm to fold; it keeps its place in the network, so that state-dict keys do not change."""
        self._norm = (norm,)  # a tuple: not a child of this module
        return self

    def folded(self, mean: Tensor, var: Tensor) -> tuple[Tensor, Tensor]:
        """Return weight and bias with the BN folded in, by these statistics."""
        factor, bias = self._factor(mean, var)
        return self.weight * factor.reshape(-1, 1, 1, 1), bias

    def _factor(self, mean: Tensor, var: Tensor) -> tuple[Tensor, Tensor]:
        """Return each output's factor of the weight, and the bias, (out,) each."""
        factor, bias = normalizing(self._norm[0], mean, var)
        return factor, bias if self.bias is None else bias + self.bias * factor

    def weight_codes(self) -> tuple[Tensor, Tensor | None]:
        """Return codes and scale of the weight folded with the running statistics."""
        norm = self._norm[0]
        return self.weight_quantizer(self.folded(norm.running_mean, norm.running_var)[0])

    def sources(self) -> list[Tensor]:
        norm = self._norm[0]
        found = (norm.weight, norm.running_mean, norm.running_var)
        return [*super().sources(), *(tensor for tensor in found if tensor is not None)]

    def folded_bias(self) -> Tensor:
        """Return the bias that belongs to weight_codes, (out,)."""
        norm = self._norm[0]
        return self._factor(norm.running_mean, norm.running_var)[1]

    def statistics(self, codes: Tensor, scale: Tensor | None, moments: Moments = moments) -> tuple[Tensor, Tensor]:
        """Return mean and variance of the unfolded layer's output for an input of codes * scale."""
        norm = self._norm[0]
        if not (self.training and norm.training):
            return norm.running_mean, norm.running_var
        weight = self.weight_quantizer.in_units(self.weight)
        plain = products.convolve_for_statistics(self, codes, weight, self.span())
        mean, var = moments(plain)
        if scale is not None:
            mean, var = mean * scale, var * scale.square()
        if self.bias is not None:
            mean = mean + self.bias
        with torch.no_grad():
            move_statistics(norm, mean, var, ranks.everywhere(plain.numel() // plain.shape[1]))
        return mean, var

    def sums(self, x: Tensor | Quantized, moments: Moments = moments) -> tuple[Tensor, Tensor | None, Tensor | None]:
        x_codes, x_scale = self.input_codes(x)
        layouts: Layouts = {}
        if self.training:
            weight, bias = self.folded(*self.statistics(x_codes, x_scale, moments))
            w_codes, w_scale = self.weight_quantizer(weight)
        else:
            w_codes, w_scale, layouts = self.reused_codes()
            bias = self.folded_bias()
        return products.convolve(self, x_codes, w_codes, self.span(), layouts), combined(x_scale, w_scale), bias
