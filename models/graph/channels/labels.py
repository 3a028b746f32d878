"""Tensors of channel labels: which channel each number of a value comes from, and the operations that move them.

A label is a whole number. 0 stands for what comes from no channel or from several; such a place is never cut. A
negative label is that of a channel which says something other than 0 when all its rows are 0: 1/2 behind a sigmoid.
Label tensors have the shape of the values; axes along which nothing changes are expanded and cost nothing.
"""

from __future__ import annotations

import torch
from torch import Tensor

aten = torch.ops.aten

MOVES = frozenset({
    aten.view, aten._unsafe_view, aten.reshape, aten.flatten, aten.unflatten, aten.permute, aten.transpose, aten.t,
    aten.movedim, aten.contiguous, aten.clone, aten.alias, aten.detach, aten.detach_, aten.to, aten._to_copy, aten.chunk,
    aten.split, aten.split_with_sizes, aten.tensor_split, aten.unbind, aten.slice, aten.select, aten.narrow,
    aten.unsqueeze, aten.squeeze, aten.expand, aten.expand_as, aten.repeat, aten.repeat_interleave, aten.cat, aten.stack,
    aten.roll, aten.flip, aten.pixel_shuffle, aten.pixel_unshuffle, aten.channel_shuffle, aten.view_as, aten.reshape_as,
})  # fmt: skip
"""Operations that put numbers into other places and compute nothing: they are run on the labels themselves."""

IDLE = frozenset({aten.contiguous, aten.clone, aten.alias, aten.detach, aten.detach_})
"""Those of them that leave every number where it is; a narrower network may do without."""

VIEWS = frozenset({aten.view, aten.reshape, aten.unsqueeze, aten.squeeze})
"""Those of them that can lay a tensor of the network out for a sum or product: gamma.view(1, -1, 1, 1)."""

JOINS = frozenset({aten.cat, aten.stack, aten.expand_as, aten.view_as, aten.reshape_as})
"""Those of them that take several values."""

PARTS = frozenset({
    aten.view, aten._unsafe_view, aten.reshape, aten.unflatten, aten.chunk, aten.split, aten.split_with_sizes,
    aten.tensor_split, aten.unbind, aten.slice, aten.select, aten.narrow, aten.index,
})  # fmt: skip
"""Those of them that can share channels out."""

SHAPES = frozenset(
    {aten.zeros_like, aten.ones_like, aten.full_like, aten.empty_like, aten.new_zeros, aten.new_ones, aten.new_full}
)
"""Operations that read the shape of a value and not the value."""

POINTWISE = frozenset({
    aten.relu, aten.relu6, aten.hardtanh, aten.clamp, aten.clamp_min, aten.clamp_max, aten.leaky_relu, aten.elu,
    aten.selu, aten.celu, aten.gelu, aten.silu, aten.mish, aten.sigmoid, aten.log_sigmoid, aten.tanh, aten.hardswish,
    aten.hardsigmoid, aten.hardshrink, aten.softshrink, aten.softplus, aten.abs, aten.neg, aten.exp, aten.expm1,
    aten.log1p, aten.sqrt, aten.square, aten.pow, aten.erf, aten.sin, aten.cos, aten.rsub, aten.dropout,
    aten.feature_dropout, aten.alpha_dropout, aten.floor, aten.round, aten.sign, aten.add, aten.sub,
    aten.mul, aten.div, aten.maximum, aten.minimum,
})  # fmt: skip
"""Functions of one number at a time: those of two where the other is a number of the code, too."""

SUMS = frozenset({aten.add, aten.sub, aten.maximum, aten.minimum})
PRODUCTS = frozenset({aten.mul})

SPATIAL = frozenset({
    aten.max_pool1d, aten.max_pool2d, aten.max_pool3d, aten.avg_pool1d, aten.avg_pool2d, aten.avg_pool3d,
    aten.adaptive_avg_pool1d, aten.adaptive_avg_pool2d, aten.adaptive_avg_pool3d, aten.upsample_nearest1d,
    aten.upsample_nearest2d, aten.upsample_bilinear2d, aten.upsample_bicubic2d, aten._upsample_nearest_exact2d,
})  # fmt: skip
"""Operations that work on each channel (axis 1) apart and give 0 of 0."""

REDUCTIONS = frozenset({aten.mean, aten.sum, aten.amax, aten.amin})
"""Over axes; what is reduced must be one channel."""


def compact(labels: Tensor) -> Tensor:
    """One entry of every axis along which a label tensor is expanded."""
    for axis, stride in enumerate(labels.stride()):
        if stride == 0 and labels.shape[axis] > 1:
            labels = labels.narrow(axis, 0, 1)
    return labels


def varies(labels: Tensor, axis: int) -> bool:
    """Whether labels change along an axis."""
    labels = compact(labels)
    return labels.shape[axis] > 1 and not bool((labels == labels.narrow(axis, 0, 1)).all())


def along(labels: Tensor, axis: int) -> Tensor | None:
    """The labels along an axis, (size of the axis,); None where they change along another one, too."""
    size = labels.shape[axis]
    rows = compact(labels).movedim(axis, 0).flatten(1)
    if not bool((rows == rows[:, :1]).all()):
        return None
    return rows[:, 0].expand(size) if len(rows) == 1 else rows[:, 0]


def spread(labels: Tensor, shape: tuple[int, ...], axis: int = 1) -> Tensor:
    """Labels (n,) as those of a value of this shape, along an axis."""
    view = [1] * len(shape)
    view[axis] = -1
    return labels.reshape(view).expand(shape)


def stretched(labels: Tensor, other: Tensor) -> bool:
    """Whether broadcasting lays one channel of `labels` over several of `other`."""
    shape = torch.broadcast_shapes(labels.shape, other.shape)
    own = labels.reshape((1,) * (len(shape) - labels.ndim) + tuple(labels.shape))
    theirs = other.reshape((1,) * (len(shape) - other.ndim) + tuple(other.shape))
    return any(own.shape[k] == 1 < size and varies(theirs, k) for k, size in enumerate(shape))


def pairs(one: Tensor, other: Tensor) -> Tensor:
    """Labels that meet element by element, each pair once: (n, 2), without signs."""
    one, other = torch.broadcast_tensors(one, other)
    for axis in range(one.ndim):
        if one.stride(axis) == 0 and other.stride(axis) == 0 and one.shape[axis] > 1:
            one, other = one.narrow(axis, 0, 1), other.narrow(axis, 0, 1)
    found = torch.stack([one.flatten().abs(), other.flatten().abs()], 1)
    return found[(found[:, 0] != found[:, 1])].unique(dim=0)
