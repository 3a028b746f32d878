"""Exact products of codes by a CPU's int8 convolutions. Gradients are those of bf16 convolutions if the CPU has them.

bf16 represents all codes, so such a gradient rounds only the gradient from behind, and its result. Products that bytes do
not hold have fp32 gradients, see products.py.
"""

from __future__ import annotations

from typing import Any, NamedTuple

import torch
from torch import Tensor, nn

from engine.numerics import onednn, precision
from models.layers import qconv
from models.layers.qconv import QConv

Codes = tuple[int, int]
"""The least and the largest possible code."""


class Layout(NamedTuple):
    """A weight laid out for int8 convolutions.

    Args:
        codes: the convolution with the weight w; if `ones` is given, with h of w = 2 h + 1.
        ones: the convolution with ones: the sum of a window's inputs is the same for every output.
        doubled: whether `codes` returns twice its sums. It does if they are then exact in fp32.
    """

    codes: QConv
    ones: QConv | None = None
    doubled: bool = False


def fits(conv: nn.Conv2d, device: torch.device, codes: Codes) -> bool:
    """Return whether an input's codes fit into bytes and this processor's int8 convolutions are exact; see qconv.trusted.

    Args:
        codes: the least and the largest code of the input.
    """
    low, high = codes
    plain = conv.padding_mode == "zeros" and not isinstance(conv.padding, str)
    return device.type == "cpu" and plain and low <= 0 <= high <= low + 255 and not qconv.trusted()


def layout(conv: nn.Conv2d, shape: tuple[int, ...], weight: Tensor, codes: Codes) -> Layout | None:
    """Return the layout of a weight for inputs of a shape, or None if its codes do not fit into bytes."""
    weight = weight.detach()
    if _is_byte(weight):
        return Layout(_laid_out(weight, conv, shape, -codes[0]))
    halved = (weight - 1) / 2  # bytes for odd codes, like DoReFa's of 8 bits
    if not _is_byte(halved) or not torch.equal(halved, halved.round()):
        return None
    doubled = bool(max(-codes[0], codes[1]) * halved.abs().flatten(1).sum(1).max() < 2**23)
    half = _laid_out(halved, conv, shape, -codes[0], 2.0 if doubled else 1.0)
    return Layout(half, _laid_out(torch.ones_like(weight[: conv.groups]), conv, shape, -codes[0]), doubled)


def _is_byte(weight: Tensor) -> bool:
    least, most = weight.aminmax()
    return bool(least >= -128) and bool(most <= 127)


class Product(torch.autograd.Function):
    """conv(x, weight) of codes that fit, in fp32: sums of integers in 32 bits, rounded once if above 2^24.

    Above it, sums of halved codes are rounded twice. Then they are off by at most one unit in the last place.

    The codes of x are in one of products.CODES, those of the weight in fp32.
    """

    @staticmethod
    def forward(ctx: Any, x: Tensor, weight: Tensor, conv: nn.Conv2d, laid_out: Layout) -> Tensor:
        ctx.save_for_backward(x, weight)
        ctx.conv = conv
        held = _bytes(x, laid_out.codes.zero)
        found = laid_out.codes(held)
        if laid_out.ones is None:
            return found
        whole = laid_out.ones(held)
        whole = whole.repeat_interleave(len(weight) // conv.groups, 1) if conv.groups > 1 else whole
        return found.add_(whole) if laid_out.doubled else (2 * found.double() + whole).float()

    @staticmethod
    def backward(ctx: Any, *grads: Tensor) -> Any:
        (x, weight), conv = ctx.saved_tensors, ctx.conv
        half = precision.has_bf16(x.device) and not onednn.in_fp32(conv, x.shape[2:])
        of_all, codes, of_filters = (
            value.to(torch.bfloat16 if half else torch.float32) for value in (*grads, x, weight)
        )
        of_x, of_weight, _ = torch.ops.aten.convolution_backward(
            of_all, codes, of_filters, None, conv.stride, conv.padding, conv.dilation, False, [0, 0], conv.groups,
            [ctx.needs_input_grad[0], ctx.needs_input_grad[1], False],
        )  # fmt: skip
        of_x, of_weight = (None if of is None else of.to(given.dtype) for of, given in ((of_x, x), (of_weight, weight)))
        return of_x, of_weight, None, None


def _bytes(x: Tensor, zero: int) -> Tensor:
    """Return codes plus `zero` in bytes, channels last."""
    if x.dtype in (torch.uint8, torch.int8):
        held = x.view(torch.uint8)  # where the sum of codes below 0 is right, too, as bytes wrap around
        return (held + zero if zero else held).contiguous(memory_format=torch.channels_last)
    short = x.to(torch.int16)  # in two steps, as torch converts fp32 to bytes one by one
    short = short.add_(zero) if zero else short
    return short.to(torch.uint8, memory_format=torch.channels_last)


def _laid_out(weight: Tensor, conv: nn.Conv2d, shape: tuple[int, ...], zero: int, scale: float = 1.0) -> QConv:
    stride, padding, dilation = (_pair(value) for value in (conv.stride, conv.padding, conv.dilation))
    of_all, none = torch.full((1,), scale), torch.zeros(len(weight))
    return QConv(weight.to(torch.int8), of_all, none, zero, stride, padding, dilation, conv.groups, shape=shape)


def _pair(value: Any) -> tuple[int, int]:
    first, second = value
    return int(first), int(second)
