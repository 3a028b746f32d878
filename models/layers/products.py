"""Products of codes: convolutions and linear layers on integers, in the current precision.

Codes of 8 bits are integers up to 256, which bf16 and TF32 represent exactly. A product of two is at most 2^16, and
fp32 sums of products are exact if no partial sum can exceed 2^24. Exact results therefore need only fp32 sums.
eight_bits.py computes them by int8 convolutions, proven.py by a GPU's convolutions.
"""

from __future__ import annotations

from collections.abc import Callable, Hashable, Iterator
from contextlib import contextmanager
from functools import partial

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from engine.numerics import onednn, precision
from models.layers import columns, eight_bits, proven
from models.layers.eight_bits import Codes, Layout

CODES = (torch.float32, torch.bfloat16, torch.uint8, torch.int8)
"""The types in which codes of an input may be stored."""
LARGEST = 256
"""bf16 has 8 significant bits: it represents all integers up to this."""
SUM = 2**24
"""fp32 represents all integers up to this."""
SAFE = SUM * (1 - 1e-5)
"""Limit for `reach`, with a margin, as a reach is itself a sum in fp32."""

Times = Callable[[Tensor, Tensor], Tensor]
"""A product of an input and a weight."""
Span = Callable[[], Codes]
"""Returns the least and largest code; it may have to wait for a GPU."""
Layouts = dict[tuple[tuple[int, ...], Codes], Layout | None]
"""The layouts of one weight, by the shape and the codes of the input; None: its codes do not fit into bytes."""


def convolve(conv: nn.Conv2d, x: Tensor, weight: Tensor, codes: Span | None, layouts: Layouts | None = None) -> Tensor:
    """Convolve other tensors with the geometry of `conv`, with every padding mode.

    Args:
        codes: returns the code range of `x`, if both tensors are codes; None for numbers and an ordinary convolution.
        layouts: those already made of this weight; a new one is added.
    """
    if x.dtype in CODES:
        laid_out = in_bytes(conv, tuple(x.shape), weight, codes, {} if layouts is None else layouts)
        if laid_out is not None:
            return eight_bits.Product.apply(x, weight, conv, laid_out)
    how = (conv.stride, conv.padding, conv.padding_mode, conv.dilation, conv.groups)
    return _product(partial(convolution, conv), x, weight, codes, conv.groups, how)


def in_bytes(
    conv: nn.Conv2d, shape: tuple[int, ...], weight: Tensor, codes: Span | None, layouts: Layouts
) -> Layout | None:
    """Return the weight's layout for int8 convolutions of an input of this shape, or None where they are not used.

    Args:
        codes, layouts: as in `convolve`.
    """
    if codes is None or precision.in_force() != "exact":
        return None
    span = codes()
    if not eight_bits.fits(conv, weight.device, span):
        return None
    if (shape, span) not in layouts:
        layouts[shape, span] = eight_bits.layout(conv, shape, weight, span)
    return layouts[shape, span]


def convolve_for_statistics(conv: nn.Conv2d, x: Tensor, weight: Tensor, codes: Span | None) -> Tensor:
    """Convolve codes with weights that are numbers, for statistics over a batch.

    The statistics do not depend on the last digits of each weight, so bf16 may round the weights.
    """
    rounded = precision.in_force() == "bf16"
    return _product(partial(convolution, conv), x, weight, codes if rounded else None)


def linear(x: Tensor, weight: Tensor, codes: Span | None) -> Tensor:
    """Return x @ weight^T. Shapes: (..., in), (out, in) -> (..., out). `codes` as in `convolve`."""
    return _product(F.linear, x, weight, codes)


def _product(
    times: Times, x: Tensor, weight: Tensor, codes: Span | None, groups: int = 1, key: Hashable = None
) -> Tensor:
    how = precision.in_force()
    if x.dtype in CODES[1:]:  # codes that are stored in fewer bits
        if codes is not None and how == "bf16" and x.dtype == torch.bfloat16:
            return times(x, weight.bfloat16())
        x = x.float()
    if codes is None or x.dtype != torch.float32 or how == "fp32":
        return times(x, weight)
    if how == "bf16":
        return _rounded(times, x, weight)
    return _exact(times, x, weight, codes(), groups, key)


def _rounded(times: Times, x: Tensor, weight: Tensor) -> Tensor:
    return times(x.bfloat16(), weight.bfloat16()).float()


def _exact(times: Times, x: Tensor, weight: Tensor, codes: Codes, groups: int, key: Hashable) -> Tensor:
    """Compute the product in integers; a result above 2^24 is rounded once."""
    inputs, axis = weight.shape[1], -1 if weight.ndim == 2 else 1
    each = inputs
    while each and any(reach(part, codes) >= SAFE for part in weight.split(each, 1)):
        each = -(-each // 2) if each > 1 else 0
    if not each or (groups > 1 and each < inputs):  # a single product may exceed it, or groups prevent a split
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
    """Return how far from 0 any partial sum of a filter's products can be.

    Args:
        weight: codes, (out, in / groups, ...).
        codes: the least and the largest code of the input.
    """
    raw, (low, high) = weight.detach().flatten(1), codes
    up, down = raw.clamp_min(0).sum(1), raw.clamp_max(0).sum(1)
    low, high = min(low, 0), max(high, 0)  # padding holds 0, and a partial sum lacks some products
    most = torch.maximum(up * high + down * low, -(up * low + down * high))
    return float(most.max()) if len(most) else 0.0


@contextmanager
def _quick(small: bool) -> Iterator[None]:
    """Let a CPU compute fp32 products by bf16 ones with fp32 sums within the block, if it has them; not in backward().

    Args:
        small: whether bf16 represents all codes exactly.
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
    """Convolve other tensors with the geometry of `conv`, without its bias."""
    half = x.dtype == torch.bfloat16 or torch.is_autocast_enabled("cpu")
    if half and not x.is_cuda and onednn.in_fp32(conv, x.shape[2:]):
        with torch.autocast("cpu", enabled=False):
            return convolution(conv, x.float(), weight.float()).to(x.dtype)
    if columns.fits(conv, x):
        return columns.convolution(conv, x, weight)
    around = conv.padding
    padding: int | str | tuple[int, ...] = around
    if conv.padding_mode != "zeros" and around != "valid":
        if isinstance(around, str):  # "same"; for an even kernel one more at the end, like torch
            totals = [d * (k - 1) for d, k in zip(conv.dilation, conv.kernel_size, strict=True)]
            ends = [(total // 2, total - total // 2) for total in totals]
        else:
            ends = [(size, size) for size in around]
        x, padding = F.pad(x, [side for pair in reversed(ends) for side in pair], mode=conv.padding_mode), 0
    spare = columns.spare(x, weight, conv.groups)
    found = F.conv2d(x, columns.with_spare(weight, spare), None, conv.stride, padding, conv.dilation, conv.groups)
    return found[:, : len(weight)] if spare else found
