"""Sums with a defined order: in fp64, one number after the other, so that any engine can give the same bits."""

from __future__ import annotations

import itertools

import torch
from torch import Tensor
from torch.nn import functional as F

from deploy.operations.base import padding_of_windows
from deploy.operations.pools import AdaptivePool, AveragePool


def summed(x: Tensor, axes: tuple[int, ...]) -> Tensor:
    """Sum fp64 numbers over some axes, the last axis fastest; these axes then have length 1."""
    others = [axis for axis in range(x.ndim) if axis not in axes]
    rows = x.permute(*axes, *others).reshape(-1, *(x.shape[axis] for axis in others))
    total = rows[0].clone()
    for row in rows[1:]:
        total += row
    return total.reshape([1 if axis in axes else size for axis, size in enumerate(x.shape)])


def average_pool(x: Tensor, operation: AveragePool, rows: int, columns: int) -> Tensor:
    """Return the means of windows of (N, C, H, W) fp32 numbers, (N, C, rows, columns).

    Args:
        rows, columns: the number of windows in each direction.
    """
    height, width = x.shape[2:]
    (high, wide), (down, over) = operation.kernel, operation.stride
    above, below, left, right = padding_of_windows(
        (height, width), (rows, columns), operation.kernel, operation.stride, operation.padding
    )
    padded = F.pad(x.double(), (left, right, above, below))
    total = padded.new_zeros(*x.shape[:2], rows, columns)
    for row, column in itertools.product(range(high), range(wide)):
        total += padded[
            :, :, row : row + (rows - 1) * down + 1 : down, column : column + (columns - 1) * over + 1 : over
        ]
    divisor = (
        operation.divisor if operation.divisor is not None else counts(operation, (height, width), (rows, columns))
    )
    return (total / divisor).float()


def counts(operation: AveragePool, sides: tuple[int, ...], windows: tuple[int, ...]) -> Tensor:
    """Return how many places of each window count, (rows, columns); places that ceil adds beyond the padding never do."""
    each = []
    for place in range(2):
        size, stride = sides[place], operation.stride[place]
        before, after = operation.padding[2 * place], operation.padding[2 * place + 1]
        starts = torch.arange(windows[place], dtype=torch.float64) * stride - before
        ends = (starts + operation.kernel[place]).clamp(max=size + after)
        each.append(ends - starts if operation.counts_padding else ends.clamp(max=size) - starts.clamp(min=0))
    return each[0][:, None] * each[1]


def adaptive_pool(x: Tensor, operation: AdaptivePool) -> Tensor:
    """Return the means or maxima of an adaptive pool's windows of (N, C, H, W) fp32 numbers."""
    spans = [
        [(i * size // out, -(-(i + 1) * size // out)) for i in range(out)]
        for size, out in zip(x.shape[2:], operation.size, strict=True)
    ]
    rows = []
    for top, bottom in spans[0]:
        row = []
        for left, right in spans[1]:
            part = x[:, :, top:bottom, left:right]
            if operation.kind == "max":
                row.append(part.amax((2, 3)))
            else:
                row.append((summed(part.double(), (2, 3))[:, :, 0, 0] / part[0, 0].numel()).float())
        rows.append(torch.stack(row, 2))
    return torch.stack(rows, 2)
