"""Products of codes: convolutions and linear layers on integers, in the precision that is in force.

Codes of 8 bits are whole numbers up to 256: bf16 holds them, and TF32 does. A product of two is one up to 2^16, and fp32 holds
sums of them exactly as long as no partial sum can pass 2^24. So exact results need no exact arithmetic, only fp32 sums;
eight_bits.py has them by int8 convolutions, proven.py by a GPU's.
"""

from __future__ import annotations

from collections.abc import Callable, Hashable, Iterator
from contextlib import contextmanager
from functools import partial

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from engine.system import precision
from models.layers import columns, eight_bits, proven
from models.layers.eight_bits import Codes

LARGEST = 256
"""bf16 has 8 bits of a number: it holds whole ones up to this."""
SUM = 2**24
"""fp32 holds whole numbers up to this."""
SAFE = SUM * (1 - 1e-5)
"""A reach is a sum in fp32 itself."""

Times = Callable[[Tensor, Tensor], Tensor]
"""A product of an input and a weight."""
Span = Callable[[], Codes]
"""Gives these: a GPU may have to be waited for."""


def convolve(conv: nn.Conv2d, x: Tensor, weight: Tensor, codes: Span | None) -> Tensor:
    """The convolution that `conv` describes, of other tensors; every padding mode.

    Args:
        codes: gives those of `x`, if both tensors are such; None: they are numbers, and the convolution is an ordinary one.
    """
    if codes is not None and precision.in_force() == "exact" and x.dtype == torch.float32:
        span = codes()
        if eight_bits.fits(conv, x, weight, span):
            return eight_bits.Product.apply(x, weight, conv, span)
    how = (conv.stride, conv.padding, conv.padding_mode, conv.dilation, conv.groups)
    return _product(partial(convolution, conv), x, weight, codes, conv.groups, how)


def convolve_for_statistics(conv: nn.Conv2d, x: Tensor, weight: Tensor, codes: Span | None) -> Tensor:
    """As `convolve`, where `codes` are those of x, and the weights are numbers: statistics over a batch do not hang on the digits of
    each weight, so bf16 may round them.
    """
    rounded = precision.in_force() == "bf16"
    return _product(partial(convolution, conv), x, weight, codes if rounded else None)


def linear(x: Tensor, weight: Tensor, codes: Span | None) -> Tensor:
    """x @ weight^T. Shapes: (..., in), (out, in) -> (..., out). `codes` as of `convolve`."""
    return _product(F.linear, x, weight, codes)


def _product(
    times: Times, x: Tensor, weight: Tensor, codes: Span | None, groups: int = 1, key: Hashable = None
) -> Tensor:
    how = precision.in_force()
    if x.dtype == torch.bfloat16:  # codes that were stored so
        return times(x.float(), weight) if codes is None else times(x, weight.bfloat16())
    if codes is None or x.dtype != torch.float32 or how == "fp32":
        return times(x, weight)
    if how == "bf16":
        return _rounded(times, x, weight)
    return _exact(times, x, weight, codes(), groups, key)


def _rounded(times: Times, x: Tensor, weight: Tensor) -> Tensor:
    return times(x.bfloat16(), weight.bfloat16()).float()


def _exact(times: Times, x: Tensor, weight: Tensor, codes: Codes, groups: int, key: Hashable) -> Tensor:
    """As whole numbers; a result above 2^24 is rounded once."""
    inputs, axis = weight.shape[1], -1 if weight.ndim == 2 else 1
    each = inputs
    while each and any(reach(part, codes) >= SAFE for part in weight.split(each, 1)):
        each = -(-each // 2) if each > 1 else 0
    if not each or (groups > 1 and each < inputs):  # one product alone may pass it, or parts lie apart
        return times(x.double(), weight.double()).to(x.dtype)
    pairs = [(x, weight)]
    if each < inputs:
        pairs = list(zip(x.split(each, axis), weight.split(each, 1), strict=True))
    if x.is_cuda:
        found = [proven.product(times, *pair, key) for pair in pairs]
    else:
        small = max(*(abs(code) for code in codes), float(weight.detach().abs().amax())) <= LARGEST
        with _quick(small):
            found = [times(*pair) for pair in pairs]
    if len(found) <= 2:
        return sum(found[1:], found[0])
    return sum((part.double() for part in found[1:]), found[0].double()).to(x.dtype)


def reach(weight: Tensor, codes: Codes) -> float:
    """How far from 0 a sum of some products of a filter can be.

    Args:
        weight: codes, (out, in / groups, ...).
        codes: the least and the largest of the input.
    """
    raw, (low, high) = weight.detach().flatten(1), codes
    up, down = raw.clamp_min(0).sum(1), raw.clamp_max(0).sum(1)
    low, high = min(low, 0), max(high, 0)  # a border holds 0, and of some sums of products the others are missing
    most = torch.maximum(up * high + down * low, -(up * low + down * high))
    return float(most.max()) if len(most) else 0.0


@contextmanager
def _quick(small: bool) -> Iterator[None]:
    """Let fp32 products of a CPU take bf16 ones with fp32 sums where it has them, inside; backward() is outside.

    Args:
        small: whether all codes are numbers that bf16 holds.
    """
    if not small:
        yield
        return
    switches = (torch.backends.mkldnn.conv, torch.backends.mkldnn.matmul)  # type: ignore[attr-defined]
    before = [switch.fp32_precision for switch in switches]
    try:
        for switch in switches:
            switch.fp32_precision = "bf16"
        yield
    finally:
        for switch, was in zip(switches, before, strict=True):
            switch.fp32_precision = was


def convolution(conv: nn.Conv2d, x: Tensor, weight: Tensor) -> Tensor:
    """The convolution that `conv` describes, of other tensors, without its bias."""
    if not x.is_cuda and x.dtype == torch.bfloat16 and precision.in_fp32(conv):
        return convolution(conv, x.float(), weight.float()).to(x.dtype)
    if columns.fits(conv, x):
        return columns.convolution(conv, x, weight)
    around = conv.padding
    padding: int | str | tuple[int, ...] = around
    if conv.padding_mode != "zeros" and around != "valid":
        if isinstance(around, str):  # "same"; an even kernel: one more behind, as torch does it
            totals = [d * (k - 1) for d, k in zip(conv.dilation, conv.kernel_size, strict=True)]
            ends = [(total // 2, total - total // 2) for total in totals]
        else:
            ends = [(size, size) for size in around]
        x, padding = F.pad(x, [side for pair in reversed(ends) for side in pair], mode=conv.padding_mode), 0
    spare = columns.spare(x, weight, conv.groups)
    found = F.conv2d(x, columns.with_spare(weight, spare), None, conv.stride, padding, conv.dilation, conv.groups)
    return found[:, : len(weight)] if spare else found
