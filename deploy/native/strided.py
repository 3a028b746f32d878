"""Settings of steps that read numbers at any distances: reductions over any axes, and products of matrices."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from deploy.native.layout import Place
from deploy.operations.functions import Reduce, Softmax, Standardize

Combining = Reduce | Standardize | Softmax
Lying = NDArray[np.int64]
"""The position of each number of a value, in its shape."""


def axes_of(operation: Combining) -> tuple[int, ...]:
    """Return the axes along which an operation combines numbers."""
    return (operation.axis,) if isinstance(operation, Softmax) else operation.axes


def over(operation: Combining, source: Place, result: Place) -> dict[str, Any]:
    """Return where the numbers of a reduction, a norm or a softmax lie, as source/over.h reads them."""
    axes = axes_of(operation)
    lie, given = _first_and_others(source.order(), axes), _first_and_others(result.order(), axes)
    order = np.argsort(lie[0], kind="stable")  # neighbours are computed side by side
    return {
        "outputs": len(order), "count": len(lie[1]), "spans": np.stack([lie[0][order], given[0][order]], 1).astype(np.int32),
        "offsets": lie[1].astype(np.int32), "each": given[1].astype(np.int32),
    }  # fmt: skip


def _first_and_others(lie: Lying, axes: Sequence[int]) -> tuple[Lying, Lying]:
    """Return the first position along some axes, for each place in the others, and the distance of all from the first."""
    others = [axis for axis in range(lie.ndim) if axis not in axes]
    rows = lie.transpose(*axes, *others).reshape(math.prod(lie.shape[axis] for axis in axes), -1)
    return rows[0], rows[:, 0] - rows[0, 0]


def apart(lie: Lying) -> tuple[int, int] | None:
    """Return the distances between rows and between columns of the last two axes; None if they are not equal."""
    found = []
    for axis in (-2, -1):
        if lie.shape[axis] == 1:
            found.append(1)
            continue
        distances = np.diff(lie, axis=axis)
        if (distances != distances.flat[0]).any():
            return None
        found.append(int(distances.flat[0]))
    return found[0], found[1]


def product(factors: Sequence[Lying], result: Lying) -> dict[str, Any]:
    """Return the settings of a product of matrices, as source/products.h reads them."""
    rows, columns = result.shape[-2:]
    distances = [n for each in (*factors, result) for n in apart(each) or ()]
    assert len(distances) == 6, "a factor whose rows or columns lie at unequal distances"
    firsts = [np.broadcast_to(each[..., 0, 0], result.shape[:-2]).reshape(-1) for each in (*factors, result)]
    return {
        "count": math.prod(result.shape[:-2]), "kernel": (rows, columns), "depth": factors[0].shape[-1],
        "apart": tuple(distances),
        "spans": np.concatenate(firsts).astype(np.int32),
    }  # fmt: skip
