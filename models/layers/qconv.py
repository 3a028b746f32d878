"""PyTorch's int8 convolutions for oneDNN: private operations, so only this file uses them, and tests them first.

`torch.ops.onednn.qconv_prepack` and `qconv2d_pointwise` take unsigned 8-bit inputs and signed 8-bit weights, and return
fp32 or 8 bits. On a CPU without VNNI, oneDNN adds pairs of products in 16 bits, which saturate; `trusted` detects this.
"""

from __future__ import annotations

import functools
from typing import Any

import torch
from torch import Tensor
from torch.nn import functional as F


class QConv:
    """One convolution, with its weight laid out for oneDNN.

    Args:
        weight: int8, (out, in / groups, h, w).
        scale: fp32, (out,), positive: scale of each sum; (1,): of all sums, which is laid out sooner.
        bias: fp32, (out,), added to the scaled sum.
        zero: the code of 0 in the input, 0 to 255; padding holds it.
        stride, padding, dilation, groups: as in torch, with the same padding on opposite sides.
        inverse, out_zero: for an output in codes, round(y * inverse) + out_zero, 0 to 255; None for fp32.
        relu: whether negative sums become 0.
        shape: of the inputs. For other ones oneDNN may lay out the weight anew in each call, which can take 20 times as
            long as the convolution.
    """

    def __init__(
        self, weight: Tensor, scale: Tensor, bias: Tensor, zero: int, stride: tuple[int, int], padding: tuple[int, int],
        dilation: tuple[int, int], groups: int, inverse: float | None = None, out_zero: int = 0, relu: bool = False,
        shape: tuple[int, ...] | None = None,
    ) -> None:  # fmt: skip
        self.scale, self.bias, self.zero = scale, bias, zero
        self.geometry = ([*stride], [*padding], [*dilation], groups)
        self.output = (1.0 / inverse, out_zero, torch.uint8) if inverse else (1.0, 0, torch.float32)
        self.relu, self.zeros = relu, torch.zeros(len(scale), dtype=torch.int8)
        room = None if shape is None else [*shape]
        self.weight = torch.ops.onednn.qconv_prepack(weight.contiguous(), scale, 1.0, zero, *self.geometry, room)

    def __call__(self, x: Tensor) -> Tensor:
        """Convolve codes (N, in, H, W), uint8, channels last, to fp32 or uint8 (N, out, H', W')."""
        return torch.ops.onednn.qconv2d_pointwise(
            x, 1.0, self.zero, self.weight, self.scale, self.zeros, self.bias, *self.geometry, *self.output,
            "relu" if self.relu else "none", [], "",
        )  # fmt: skip


@functools.cache
def trusted() -> str:
    """Return why these convolutions cannot be used on this machine; empty if they are exact."""
    try:
        with torch.no_grad():
            return next((f"{name} is wrong on this processor" for name, good in _trials() if not good), "")
    except Exception as fault:  # a private operation may disappear or change its arguments
        return f"this PyTorch has other int8 convolutions ({type(fault).__name__})"


def _trials() -> Any:
    """Yield tests with extreme codes, which reveal shortcuts: both signs, strides, groups, zero points other than 0."""
    draw = torch.Generator().manual_seed(0)

    def codes(*shape: int, low: int = 0, high: int = 256) -> Tensor:
        return torch.randint(low, high, shape, generator=draw)

    full = torch.full((1, 64, 6, 6), 255)
    cases: list[tuple[str, Tensor, Tensor, int, int, int, int]] = [
        ("a sum of largest products", full, torch.full((8, 64, 3, 3), 127), 0, 1, 1, 1),
        ("a sum of lowest products", full, torch.full((8, 64, 3, 3), -128), 0, 1, 1, 1),
        ("a product of mixed signs", codes(2, 32, 7, 7), codes(16, 32, 3, 3, low=-128, high=128), 37, 2, 1, 1),
        ("a convolution in groups", codes(2, 32, 7, 7), codes(16, 8, 3, 3, low=-128, high=128), 128, 1, 1, 4),
        ("a depthwise convolution", codes(2, 19, 7, 7), codes(19, 1, 3, 3, low=-128, high=128), 5, 1, 1, 19),
        ("a 1x1 convolution", codes(2, 40, 5, 5), codes(24, 40, 1, 1, low=-128, high=128), 0, 1, 0, 1),
        ("a 5x5 convolution", codes(1, 3, 9, 9), codes(24, 3, 5, 5, low=-128, high=128), 78, 1, 2, 1),
    ]
    for name, x, weight, zero, stride, padding, groups in cases:
        exact = F.conv2d((x - zero).double(), weight.double(), None, stride, padding, 1, groups)
        given = x.to(torch.uint8).contiguous(memory_format=torch.channels_last)
        geometry = ((stride, stride), (padding, padding), (1, 1), groups)
        one, none = torch.ones(len(weight)), torch.zeros(len(weight))
        for scale in (one, one[:1]):
            yield name, torch.equal(QConv(weight.to(torch.int8), scale, none, zero, *geometry)(given).double(), exact)
        inverse = 2.0**-12
        wanted = (exact.clamp_min(0) * inverse).round().clamp(0, 255)
        found = QConv(weight.to(torch.int8), one, none, zero, *geometry, inverse=inverse, relu=True)(given)
        yield f"{name}, rounded to 8 bits,", bool(((found.double() - wanted).abs() <= 1).all())
