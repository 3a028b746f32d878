"""Operations of values with many axes on rows of a table instead: engines keep the last axis of a table together.

A value of channels-last code has the shape (H, W, C), and its table (H W, C).
"""

from __future__ import annotations

from collections.abc import Callable
from math import prod
from typing import Any

from deploy.lowering.builder import Builder
from deploy.operations.base import Operation


def along(builder: Builder, source: int, axis: int, add: Callable[[int, int], int]) -> int:
    """Add an operation along an axis of a value. The last of many axes becomes the second one of a table.

    Args:
        add: adds it for a value and one of its axes, whose length it may change, and returns the number of its result.
    """
    shape = builder.shape(source)
    if len(shape) <= 2 or axis != len(shape) - 1:
        return add(source, axis)
    found = add(builder.reshaped(source, (prod(shape[:-1]), shape[-1]), ".rows"), 1)
    return builder.reshaped(found, (*shape[:-1], builder.shape(found)[-1]), ".axes")


def elementwise(builder: Builder, source: int, make: Callable[..., Operation], **settings: Any) -> int:
    """Add an operation on each number. Of a reshaped value, it is added before the reshaping, which may then be joined."""
    found = builder.add(make, builder.unshaped(source), **settings)
    return builder.reshaped(found, builder.shape(source), ".shape")
