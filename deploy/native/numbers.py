"""The engine's steps for operations on fp32 numbers, and their settings."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from deploy.native import steps
from deploy.native.layout import Place
from deploy.operations.base import Operation, Shape, Value
from deploy.operations.functions import Combine, Function, Product, Reduce, Slopes, Softmax, Standardize
from deploy.operations.layers import Affine, Decode
from deploy.operations.places import AdaptivePool, AveragePool, MaxPool
from deploy.reference.sums import counts
from models.layers.quantizers.base import Steps


def step_of(operation: Operation, given: Sequence[Value], shape: Shape) -> tuple[int, dict[str, Any]] | None:
    """Return the step of an operation on fp32 numbers and its settings; None if the engine has no such step.

    Args:
        given: the values that it reads.
        shape: of its result.
    """
    shapes = [value.shape for value in given]
    if isinstance(operation, Decode):
        grid = given[0].grid
        assert isinstance(grid, Steps)
        return steps.DECODE, {"numbers": (grid.scale, 0.0)}
    if isinstance(operation, Affine):
        parts = {"scale": operation.multiplier, "shift": operation.shift}
        if not (
            _along_channels(operation.axis, shape) or all(part is None or part.size == 1 for part in parts.values())
        ):
            return None
        return steps.AFFINE, {name: _each(part, shape) for name, part in parts.items() if part is not None}
    if isinstance(operation, Function):
        told = (*operation.settings, 0.0, 0.0)[:2]
        return steps.FUNCTION, {"what": steps.FUNCTIONS.index(operation.kind), "numbers": told}
    if isinstance(operation, Slopes) and _along_channels(0, shape):
        return steps.SLOPES, {"scale": _each(operation.slope, shape)}
    if isinstance(operation, Combine) and (len(shape) <= 3 or shapes[0] == shapes[1]):
        return steps.COMBINE, {"what": steps.COMBINATIONS.index(operation.kind)}
    if isinstance(operation, MaxPool):
        return steps.MAXPOOL, windows(operation)
    if isinstance(operation, AveragePool):
        if operation.divisor is None:
            divisors = counts(operation, shapes[0][1:], shape[1:]).numpy()
        else:
            divisors = np.full(shape[1:], operation.divisor, np.float64)
        return steps.AVERAGE, {**windows(operation), "divisors": np.ascontiguousarray(divisors)}
    if isinstance(operation, AdaptivePool):
        spans = [
            (i * size // out, -(-(i + 1) * size // out))
            for size, out in zip(shapes[0][1:], operation.size, strict=True)
            for i in range(out)
        ]
        return steps.SPANS, {"what": steps.SPAN_KINDS.index(operation.kind), "spans": np.array(spans, np.int32)}
    if isinstance(operation, Reduce):
        return _reduction(operation, shapes[0])
    if isinstance(operation, Standardize) and len(operation.axes) == 1 and _along_channels(operation.axes[0], shape):
        return steps.STANDARDIZE, {"divisors": np.array([operation.eps])}
    if isinstance(operation, Softmax) and _along_channels(operation.axis, shape):
        return steps.SOFTMAX, {"what": int(operation.log)}
    if isinstance(operation, Product):
        return steps.PRODUCT, _matrices(shapes, shape)
    return None


def _reduction(operation: Reduce, shape: Shape) -> tuple[int, dict[str, Any]] | None:
    """Return the step of a reduction over rows, columns or both, or over channels; None for others."""
    what = {"what": steps.SPAN_KINDS.index(operation.kind)}
    if len(operation.axes) == 1 and _along_channels(operation.axes[0], shape):
        return steps.REDUCE, what
    first = len(shape) - 2
    if len(shape) < 2 or min(operation.axes) < first or (len(shape) == 2 and 1 in operation.axes):
        return None
    spans = [
        span
        for side, size in enumerate(Place(shape).sides[:2])
        for span in ([(0, size)] if first + side in operation.axes else [(i, i + 1) for i in range(size)])
    ]
    return steps.SPANS, {**what, "spans": np.array(spans, np.int32)}


def _matrices(shapes: Sequence[Shape], shape: Shape) -> dict[str, Any]:
    """Return the settings of a product: for each matrix of the result, those of the factors."""
    each = [np.arange(math.prod(given[:-2]), dtype=np.int32).reshape(given[:-2]) for given in shapes]
    spans = np.concatenate([np.broadcast_to(one, shape[:-2]).reshape(-1) for one in each])
    return {"what": int(len(shape) > 2), "count": math.prod(shape[:-2]), "spans": np.ascontiguousarray(spans)}


def _along_channels(axis: int, shape: tuple[int, ...]) -> bool:
    """Return whether an axis is a value's channel axis."""
    return (axis == 0 and len(shape) in (1, 3)) or (axis == 1 and len(shape) == 2)


def _each(part: NDArray[np.float32], shape: tuple[int, ...]) -> NDArray[np.float32]:
    """Broadcast to one number for each channel."""
    return np.ascontiguousarray(np.broadcast_to(part, (Place(shape).sides[2],)), np.float32)


def windows(pool: MaxPool | AveragePool) -> dict[str, Any]:
    return {
        "kernel": pool.kernel, "stride": pool.stride, "padding": (pool.padding[0], pool.padding[2]),
        "dilation": getattr(pool, "dilation", (1, 1)),
    }  # fmt: skip
