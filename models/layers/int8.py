"""The INT8 layers with the original repository's names and arguments: Conv2d_Q and BNFold_Conv2d_Q."""

from __future__ import annotations

from models.layers.bnfold import BNFoldConv2d, FoldedNorm
from models.layers.conv_q import QuantConv2d
from models.layers.quantizers.affine import AffineActivation, AffineWeight
from models.layers.quantizers.base import Quantizer
from models.layers.quantizers.identity import Identity


def _quantizers(a_bits: int, w_bits: int, q_type: int, first_layer: int) -> tuple[Quantizer, Quantizer]:
    if q_type not in (0, 1):
        raise ValueError(f"q_type {q_type} is neither 0 (symmetric) nor 1 (asymmetric)")
    if first_layer not in (0, 1):
        raise ValueError(f"first_layer {first_layer} is neither 0 nor 1")
    for name, bits in (("a_bits", a_bits), ("w_bits", w_bits)):
        if type(bits) is not int or bits not in (*range(2, 9), 32):
            raise ValueError(f"{name} {bits!r} is neither an integer from 2 to 8 nor 32 (float)")
    weight = Identity() if w_bits == 32 else AffineWeight(w_bits, q_type == 0, per_channel=True)
    activation = Identity() if first_layer or a_bits == 32 else AffineActivation(a_bits, q_type == 0)
    return weight, activation


class Conv2d_Q(QuantConv2d):
    """An INT8 convolution with the original repository's name and keyword arguments.

    Args:
        a_bits, w_bits: bits of the input and of the weight, 2 to 8, or 32 for float.
        q_type: 0 symmetric, 1 asymmetric.
        first_layer: 1 leaves the input (the picture) unquantized, 0 quantizes it.

    The input's range is measured in training; before that, evaluation leaves the input unquantized.

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
    """An INT8 convolution with its own batch norm (child `bn`) folded in; arguments as Conv2d_Q.

    Args:
        momentum: momentum of the batch norm's statistics.

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
