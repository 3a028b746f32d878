"""The engine's steps for operations on fp32 numbers, and their settings."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from deploy.native import steps, strided
from deploy.native.layout import Place
from deploy.operations.base import Operation, Value
from deploy.operations.functions import Combine, Function, Product, Reduce, Slopes, Softmax, Standardize
from deploy.operations.layers import Affine, Decode, Transposed
from deploy.operations.places import Upsample, between
from deploy.operations.pools import AdaptivePool, AveragePool, MaxPool
from deploy.reference.sums import counts
from models.layers.quantizers.base import Steps


def step_of(
    operation: Operation, given: Sequence[Value], sources: Sequence[Place], result: Place
) -> tuple[int, dict[str, Any]] | None:
    """Return the step of an operation on fp32 numbers and its settings; None if the engine has no such step.

    Where the numbers of OVER and PRODUCT lie depends on borders; see strided.py.

    Args:
        given: the values that it reads.
        sources, result: where these values and its result lie.
    """
    shape = result.shape
    if isinstance(operation, Decode):
        grid = given[0].grid
        assert isinstance(grid, Steps)
        return steps.DECODE, {"numbers": (grid.scale, 0.0)}
    if isinstance(operation, Affine):
        parts = {"scale": operation.multiplier, "shift": operation.shift}
        side = 2 if all(part is None or part.size == 1 for part in parts.values()) else result.side(operation.axis)
        told = {name: _each(part, operation.axis, result, side) for name, part in parts.items() if part is not None}
        return steps.AFFINE, {"what": side, **told}
    if isinstance(operation, Function):
        return steps.FUNCTION, {
            "what": steps.FUNCTIONS.index(operation.kind),
            "numbers": (*operation.settings, 0.0, 0.0)[:2],
        }
    if isinstance(operation, Slopes):
        side = 2 if operation.slope.size == 1 else result.side(0)
        return steps.SLOPES, {"what": side, "scale": _each(operation.slope, 0, result, side)}
    if isinstance(operation, Combine):
        return _combination(operation, sources, result)
    if isinstance(operation, MaxPool):
        return steps.MAXPOOL, windows(operation)
    if isinstance(operation, AveragePool):
        if operation.divisor is None:
            divisors = counts(operation, sources[0].shape[1:], shape[1:]).numpy()
        else:
            divisors = np.full(shape[1:], operation.divisor, np.float64)
        return steps.AVERAGE, {**windows(operation), "divisors": np.ascontiguousarray(divisors)}
    if isinstance(operation, AdaptivePool):
        spans = [
            (i * size // out, -(-(i + 1) * size // out))
            for size, out in zip(sources[0].shape[1:], operation.size, strict=True)
            for i in range(out)
        ]
        return steps.SPANS, {"what": steps.SPAN_KINDS.index(operation.kind), "spans": np.array(spans, np.int32)}
    if isinstance(operation, (Reduce, Standardize, Softmax)):
        return _along_axes(operation, sources[0], result)
    if isinstance(operation, Product):
        return steps.PRODUCT, {}
    if isinstance(operation, Upsample):
        return steps.BILINEAR, bilinear(operation, sources[0].shape[1:])
    if isinstance(operation, Transposed):
        return steps.TRANSPOSED, transposed(operation)
    return None


def _combination(operation: Combine, sources: Sequence[Place], result: Place) -> tuple[int, dict[str, Any]] | None:
    """Return the step of two values; None if one of several axes that are channels broadcasts."""
    what = {"what": steps.COMBINATIONS.index(operation.kind)}
    if all(place.sides[side] in (1, result.sides[side]) for place in sources for side in (0, 2)):
        return steps.COMBINE, what
    if not result.in_order:
        return None
    rows = [np.arange(place.sides[0], dtype=np.int32).reshape(place.shape[:-1]) for place in sources]
    spans = np.concatenate([np.broadcast_to(each, result.shape[:-1]).reshape(-1) for each in rows])
    return steps.COMBINE, {**what, "spans": spans}


def _along_axes(operation: Reduce | Standardize | Softmax, source: Place, result: Place) -> tuple[int, dict[str, Any]]:
    """Return the step along the channels of each place, over rows and columns, or over any axes."""
    axes = strided.axes_of(operation)
    channels = [axis for axis in range(len(source.shape)) if source.side(axis) == 2]
    alike = source.in_order == result.in_order or len(source.shape) < 3
    if alike and list(axes) == channels:
        if isinstance(operation, Reduce):
            return steps.REDUCE, {"what": steps.SPAN_KINDS.index(operation.kind)}
        if isinstance(operation, Softmax):
            return steps.SOFTMAX, {"what": int(operation.log)}
        return steps.STANDARDIZE, {"divisors": np.array([operation.eps])}
    if (
        alike
        and isinstance(operation, Reduce)
        and {*axes}.isdisjoint(channels)
        and not source.in_order
        and len(source.shape) > 1
    ):
        first = len(source.shape) - 2
        spans = [
            span
            for side, size in enumerate(source.sides[:2])
            for span in ([(0, size)] if first + side in axes else [(i, i + 1) for i in range(size)])
        ]
        return steps.SPANS, {"what": steps.SPAN_KINDS.index(operation.kind), "spans": np.array(spans, np.int32)}
    if isinstance(operation, Standardize):
        return steps.OVER, {"what": steps.OVER_KINDS.index("standardize"), "divisors": np.array([operation.eps])}
    kind = operation.kind if isinstance(operation, Reduce) else "log softmax" if operation.log else "softmax"
    return steps.OVER, {"what": steps.OVER_KINDS.index(kind)}


def _each(part: NDArray[np.float32], axis: int, place: Place, side: int) -> NDArray[np.float32]:
    """Broadcast numbers along an axis to one number for each row, column or channel."""
    if part.size > 1:
        axes = [n for n in range(len(place.shape)) if place.side(n) == side]
        part = part.reshape([-1 if n == axis else 1 for n in axes])
        part = np.broadcast_to(part, [place.shape[n] for n in axes]).reshape(-1)
    return np.ascontiguousarray(np.broadcast_to(part, (place.sides[side],)), np.float32)


def windows(pool: MaxPool | AveragePool) -> dict[str, Any]:
    return {
        "kernel": pool.kernel, "stride": pool.stride, "padding": (pool.padding[0], pool.padding[2]),
        "dilation": getattr(pool, "dilation", (1, 1)),
    }  # fmt: skip


def bilinear(operation: Upsample, sides: Sequence[int]) -> dict[str, Any]:
    along = [between(*sizes, operation.align_corners) for sizes in zip(operation.size, sides, strict=True)]
    read = [np.stack((first, second), 1) for first, second, _ in along]
    return {"spans": np.concatenate(read).astype(np.int32), "divisors": np.concatenate([share for *_, share in along])}


def transposed(layer: Transposed) -> dict[str, Any]:
    groups, (inputs, outputs, *kernel) = layer.groups, layer.weight.shape
    apart = layer.weight.reshape(groups, inputs // groups, outputs, *kernel).transpose(0, 3, 4, 1, 2)
    return {
        "kernel": kernel, "stride": layer.stride, "padding": layer.padding, "dilation": layer.dilation, "groups": groups,
        "weight": np.ascontiguousarray(apart, np.float32), "shift": layer.shift,
    }  # fmt: skip
