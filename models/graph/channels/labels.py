"""Tensors of channel labels, which name the channel of each number of a value, and the operations that move them.

A label is an integer. 0 marks numbers from no channel or from several; they are never cut. A negative label marks
a channel that is not 0 when all its rows are 0 (masked), such as 1/2 behind a sigmoid. Label tensors have the shape of
the values.
Axes along which labels do not change are expanded and need no memory.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor
from torch.utils._pytree import tree_leaves

from models.graph.calls import COMPARISONS

aten = torch.ops.aten

MOVES = frozenset({
    aten._unsafe_view, aten.reshape, aten.flatten, aten.unflatten, aten.permute, aten.transpose, aten.t,
    aten.contiguous, aten.clone, aten.alias, aten.detach, aten.detach_, aten.to, aten._to_copy,
    aten.split, aten.unsafe_split, aten.split_with_sizes, aten.unbind, aten.slice, aten.select,
    aten.unsqueeze, aten.squeeze, aten.expand, aten.expand_as, aten.repeat, aten.cat, aten.stack,
    aten.roll, aten.flip, aten.pixel_shuffle, aten.pixel_unshuffle, aten.channel_shuffle, aten.view_as, aten.reshape_as,
})  # fmt: skip
"""Operations that only move numbers. The walk runs them on the labels themselves."""

IDLE = frozenset({aten.contiguous, aten.clone, aten.alias, aten.detach, aten.detach_})
"""The moves that leave every number at its place. A narrower network may lack them."""

VIEWS = frozenset({aten.reshape, aten.unsqueeze, aten.squeeze})
"""The moves that can reshape a tensor of the network for a sum or product: gamma.view(1, -1, 1, 1)."""

JOINS = frozenset({aten.cat, aten.stack, aten.expand_as, aten.view_as, aten.reshape_as})
"""The moves that take several values."""

PARTS = frozenset({
    aten._unsafe_view, aten.reshape, aten.unflatten, aten.split, aten.unsafe_split, aten.split_with_sizes,
    aten.unbind, aten.slice, aten.select, aten.index, aten.index_select,
})  # fmt: skip
"""The moves that can split channels into parts."""

SHAPES = frozenset(
    {aten.zeros_like, aten.ones_like, aten.full_like, aten.empty_like, aten.new_zeros, aten.new_ones, aten.new_full}
)
"""Operations that read only the shape of a value."""

POINTWISE = COMPARISONS.keys() | frozenset({
    aten.relu, aten.relu6, aten.hardtanh, aten.clamp, aten.clamp_min, aten.clamp_max, aten.leaky_relu, aten.elu,
    aten.selu, aten.celu, aten.gelu, aten.silu, aten.mish, aten.sigmoid, aten.log_sigmoid, aten.tanh, aten.hardswish,
    aten.hardsigmoid, aten.hardshrink, aten.softshrink, aten.softplus, aten.abs, aten.neg, aten.exp, aten.expm1,
    aten.log1p, aten.sqrt, aten.square, aten.pow, aten.erf, aten.sin, aten.cos, aten.rsub, aten.dropout,
    aten.feature_dropout, aten.alpha_dropout, aten.floor, aten.round, aten.sign, aten.add, aten.sub,
    aten.mul, aten.div, aten.maximum, aten.minimum, aten.threshold, aten.rrelu, aten.nan_to_num, aten.atan,
    aten.ceil, aten.trunc,
})  # fmt: skip
"""Functions of one number at a time. Functions of two count if the second is a number in the code."""

PARTIAL = frozenset({aten.rsqrt, aten.reciprocal, aten.log, aten.log2, aten.log10})
"""Functions of one number at a time that are not finite at 0."""

SUMS = frozenset({aten.add, aten.sub, aten.maximum, aten.minimum, aten.fmax, aten.fmin, aten.lerp})
PRODUCTS = frozenset({aten.mul})

EXPANDS = frozenset({aten.expand, aten.expand_as})
ELEMENTWISE = POINTWISE | PARTIAL | SUMS | PRODUCTS
"""Functions of numbers, one by one or pair by pair."""
BROADCASTS = SUMS | PRODUCTS | {aten.div}
"""Functions of two values, which need no expansion before them."""

SPATIAL = frozenset({
    aten.max_pool2d, aten.max_pool3d, aten.avg_pool2d, aten.avg_pool3d,
    aten.adaptive_avg_pool2d, aten.adaptive_avg_pool3d, aten.upsample_nearest1d,
    aten.upsample_nearest2d, aten.upsample_bilinear2d, aten.upsample_bicubic2d, aten._upsample_nearest_exact2d,
})  # fmt: skip
"""Operations that work on each channel (axis 1) separately and map 0 to 0."""

WITH_INDICES = frozenset({
    aten.adaptive_max_pool2d, aten.adaptive_max_pool3d, aten.max_pool2d_with_indices, aten.max_pool3d_with_indices,
})  # fmt: skip
"""Operations like those of SPATIAL that return the places of their numbers, too."""

REDUCTIONS = frozenset({
    aten.mean, aten.sum, aten.amax, aten.amin, aten.var, aten.std, aten.var_mean, aten.std_mean,
    aten.linalg_vector_norm,
})  # fmt: skip
"""Reductions over axes that map zeros to 0. The reduced numbers are of one channel, or of channels that go together."""

TOTALS = frozenset({aten.sum, aten.linalg_vector_norm})
"""The reductions over all channels to which a masked channel adds nothing."""


def compact(labels: Tensor) -> Tensor:
    """Return a label tensor with its expanded axes cut to one entry."""
    for axis, stride in enumerate(labels.stride()):
        if stride == 0 and labels.shape[axis] > 1:
            labels = labels.narrow(axis, 0, 1)
    return labels


def varies(labels: Tensor, axis: int) -> bool:
    """Return whether labels change along an axis."""
    labels = compact(labels)
    return labels.shape[axis] > 1 and not bool((labels == labels.narrow(axis, 0, 1)).all())


def splits(labels: Tensor, found: Any) -> bool:
    """Return whether an operation splits channels into several values, or over one more axis."""
    parts = [leaf for leaf in tree_leaves(found) if isinstance(leaf, Tensor)]
    axes = sum(varies(labels, axis) for axis in range(labels.ndim))
    if any(sum(varies(part, axis) for axis in range(part.ndim)) > axes for part in parts):
        return True
    all_of_them = len(compact(labels).unique())
    return any(len(compact(part).unique()) < all_of_them for part in parts)


def along(labels: Tensor, axis: int) -> Tensor | None:
    """Return the labels along an axis, (size of the axis,), or None if they also change along another axis."""
    size = labels.shape[axis]
    found, mixed = at_places(labels, axis)
    if bool(mixed.any()):
        return None
    return found[:, 0].expand(size) if len(found) == 1 else found[:, 0]


def at_places(labels: Tensor, axis: int) -> tuple[Tensor, Tensor]:
    """Return the labels at each place of an axis, and whether they change along another axis there; one row for all if equal."""
    held = compact(labels).movedim(axis, 0)
    found = held.reshape(len(held), -1)
    return found, (found != found[:, :1]).any(1)


def spread(labels: Tensor, shape: tuple[int, ...], axis: int = 1) -> Tensor:
    """Expand labels (n,) along an axis to the shape of a value."""
    view = [1] * len(shape)
    view[axis] = -1
    return labels.reshape(view).expand(shape)


def stretched(labels: Tensor, other: Tensor) -> bool:
    """Return whether broadcasting combines one channel of `labels` with several channels of `other`."""
    shape = torch.broadcast_shapes(labels.shape, other.shape)
    own = labels.reshape((1,) * (len(shape) - labels.ndim) + tuple(labels.shape))
    theirs = other.reshape((1,) * (len(shape) - other.ndim) + tuple(other.shape))
    return any(own.shape[k] == 1 < size and varies(theirs, k) for k, size in enumerate(shape))


def pairs(one: Tensor, other: Tensor) -> Tensor:
    """Return the pairs of different labels that meet element by element, each pair once: (n, 2), without signs."""
    one, other = torch.broadcast_tensors(one, other)
    for axis in range(one.ndim):
        if one.stride(axis) == 0 and other.stride(axis) == 0 and one.shape[axis] > 1:
            one, other = one.narrow(axis, 0, 1), other.narrow(axis, 0, 1)
    found = torch.stack([one.flatten().abs(), other.flatten().abs()], 1)
    return found[(found[:, 0] != found[:, 1])].unique(dim=0)
