"""Exact products of codes by a CPU's int8 convolutions, with the gradients of fp32 convolutions."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn

from models.layers import qconv
from models.layers.qconv import QConv

Codes = tuple[int, int]
"""The least and the largest possible code."""


def fits(conv: nn.Conv2d, x: Tensor, weight: Tensor, codes: Codes) -> bool:
    """Return whether these codes fit into bytes and this processor's int8 convolutions are exact; see qconv.trusted.

    Args:
        codes: the least and the largest code of the input.
    """
    low, high = codes
    plain = conv.padding_mode == "zeros" and not isinstance(conv.padding, str)
    if x.device.type != "cpu" or not plain or not low <= 0 <= high <= low + 255 or qconv.trusted():
        return False
    return _is_byte(weight) or _is_odd(weight)


def _is_byte(weight: Tensor) -> bool:
    least, most = weight.detach().aminmax()
    return bool(least >= -128) and bool(most <= 127)


def _is_odd(weight: Tensor) -> bool:
    """Return whether codes are 2 h + 1 for bytes h, like DoReFa's 8-bit codes."""
    return _is_byte((weight.detach() - 1) / 2) and bool((weight.detach().remainder(2) == 1).all())


class Product(torch.autograd.Function):
    """conv(x, weight) of codes that fit, in fp32: sums of integers in 32 bits, rounded once if above 2^24."""

    @staticmethod
    def forward(ctx: Any, x: Tensor, weight: Tensor, conv: nn.Conv2d, codes: Codes) -> Tensor:
        ctx.save_for_backward(x, weight)
        ctx.conv = conv
        held = (x - codes[0]).to(torch.uint8).contiguous(memory_format=torch.channels_last)
        if _is_byte(weight):
            return _multiplied(held, weight, conv, -codes[0])
        # w = 2 h + 1: the sum of a window's inputs is the same for every output
        halved = (weight - 1) / 2
        half = _multiplied(held, halved, conv, -codes[0])
        whole = _multiplied(held, torch.ones_like(weight[: conv.groups]), conv, -codes[0])
        whole = whole.repeat_interleave(len(weight) // conv.groups, 1) if conv.groups > 1 else whole
        largest = max(-codes[0], codes[1]) * halved.abs().flatten(1).sum(1).max()
        if largest < 2**23:  # these sums are exact in fp32
            return torch.add(whole, half, alpha=2)
        return (2 * half.double() + whole).to(x.dtype)

    @staticmethod
    def backward(ctx: Any, *grads: Tensor) -> Any:
        x, weight = ctx.saved_tensors
        conv = ctx.conv
        of_x, of_weight, _ = torch.ops.aten.convolution_backward(
            grads[0], x, weight, None, conv.stride, conv.padding, conv.dilation, False, [0, 0], conv.groups,
            [ctx.needs_input_grad[0], ctx.needs_input_grad[1], False],
        )  # fmt: skip
        return of_x, of_weight, None, None


def _multiplied(held: Tensor, weight: Tensor, conv: nn.Conv2d, zero: int) -> Tensor:
    stride, padding, dilation = (_pair(value) for value in (conv.stride, conv.padding, conv.dilation))
    one, none = torch.ones(len(weight)), torch.zeros(len(weight))
    layer = QConv(
        weight.to(torch.int8), one, none, zero, stride, padding, dilation, conv.groups, shape=tuple(held.shape)
    )
    return layer(held)


def _pair(value: Any) -> tuple[int, int]:
    first, second = value
    return int(first), int(second)
