"""Exact products of codes by a CPU's int8 convolutions, with the gradients of fp32 ones."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn

from models.layers import qconv
from models.layers.qconv import QConv

Codes = tuple[int, int]
"""The least and the largest code that there may be."""


def fits(conv: nn.Conv2d, x: Tensor, weight: Tensor, codes: Codes) -> bool:
    """Whether bytes hold these codes, and this processor's int8 convolutions are exact; see qconv.trusted.

    Args:
        codes: the least and the largest of the input.
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
    """Whether codes are twice a byte and 1, as DoReFa's of 8 bits are."""
    return _is_byte((weight.detach() - 1) / 2) and bool((weight.detach().remainder(2) == 1).all())


class Product(torch.autograd.Function):
    """conv(x, weight) of codes that fit, fp32: sums of whole numbers in 32 bits, one above 2^24 rounded once."""

    @staticmethod
    def forward(ctx: Any, x: Tensor, weight: Tensor, conv: nn.Conv2d, codes: Codes) -> Tensor:
        ctx.save_for_backward(x, weight)
        ctx.conv = conv
        held = (x - codes[0]).to(torch.uint8).contiguous(memory_format=torch.channels_last)
        if _is_byte(weight):
            return _multiplied(held, weight, conv, -codes[0])
        # w = 2 h + 1: what all inputs of a window come to is the same for every output
        halved = (weight - 1) / 2
        half = _multiplied(held, halved, conv, -codes[0])
        whole = _multiplied(held, torch.ones_like(weight[: conv.groups]), conv, -codes[0])
        whole = whole.repeat_interleave(len(weight) // conv.groups, 1) if conv.groups > 1 else whole
        largest = max(-codes[0], codes[1]) * halved.abs().flatten(1).sum(1).max()
        if largest < 2**23:  # fp32 has these sums as they are
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
    return QConv(weight.to(torch.int8), one, none, zero, stride, padding, dilation, conv.groups)(held)


def _pair(value: Any) -> tuple[int, int]:
    first, second = value
    return int(first), int(second)
