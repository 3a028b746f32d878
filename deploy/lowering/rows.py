"""Operations of values with many axes on rows of a table instead: engines keep the last axis of a table together.

A value of channels-last code has the shape (H, W, C), and its table (H W, C).
"""

from __future__ import annotations

from collections.abc import Callable
from math import prod
from typing import Any

from deploy.lowering.builder import Builder
from deploy.operations.base import Operation


def along_last(builder: Builder, source: int, add: Callable[[int], int]) -> int:
    """Add operations along the last axis of a value, which may change its length.

    Args:
        add: adds them for a value of two axes or fewer, (rows, numbers), and returns the number of their result.
    """
    shape = builder.shape(source)
    if len(shape) <= 2:
        return add(source)
    found = add(builder.reshaped(source, (prod(shape[:-1]), shape[-1]), ".rows"))
    return builder.reshaped(found, (*shape[:-1], builder.shape(found)[-1]), ".axes")


def elementwise(builder: Builder, source: int, make: Callable[..., Operation], **settings: Any) -> int:
    """Add an operation on each number. Of a reshaped value, it is added before the reshaping, which may then be joined."""
    found = builder.add(make, builder.unshaped(source), **settings)
    return builder.reshaped(found, builder.shape(source), ".shape")
