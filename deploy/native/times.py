"""time_of(operation): estimate how long an operation takes where its values lie, beside what it takes anywhere."""

from __future__ import annotations

from collections.abc import Sequence
from math import prod
from typing import cast

import numpy as np

from deploy.native import moves, steps, strided
from deploy.native.layout import Place
from deploy.native.numbers import step_of
from deploy.operations.base import Operation, Value
from deploy.operations.functions import Product

Moved = tuple[Operation, ...]

REFERENCE, SCATTERED, BESIDE = 300.0, 2.0, 0.2
"""Nanoseconds of a number that the reference computes; that OVER reads, for results that lie apart, or side by side."""
STRIDED = 0.3
"""Nanoseconds of a number that a product reads or gives at a distance."""
RUN, NUMBER = 1.0, 0.1
"""Nanoseconds of a run of a move, and of a number of it."""


def time_of(
    operation: Operation, given: Sequence[Value], sources: Sequence[Place], moved: Sequence[Moved], result: Place
) -> float:
    """Return nanoseconds on one core of an AMD EPYC (Zen 4).

    Args:
        given: the values that it reads.
        sources: the stored values that these come from.
        moved: the moves between.
    """
    if isinstance(operation, Product):
        found = 0.0 if _has_rows(result) else STRIDED * prod(result.shape)
        return found + sum(_reading(*each) for each in zip(given, sources, moved, strict=True))
    if moves.known(operation):
        return _moving(operation, given, sources, moved, result)
    step = step_of(operation, given, sources, result)
    numbers = prod((given[0] if given else result).shape)
    if step is None:
        return REFERENCE * numbers
    if step[0] != steps.OVER:
        return 0
    firsts = strided.over(cast(strided.Combining, operation), sources[0], result)["spans"][:8, 0]
    beside = np.array_equal(firsts, firsts[0] + np.arange(8))
    return (BESIDE if beside else SCATTERED) * numbers


def alike(operation: Operation) -> str:
    """Return a text that is the same for operations that take the same time between values of the same shapes."""
    told = {name: value for name, value in vars(operation).items() if name not in ("name", "sources")}
    return f"{type(operation).__name__} " + " ".join(
        f"{name}={value.shape if isinstance(value, np.ndarray) else value}" for name, value in told.items()
    )


def _has_rows(place: Place) -> bool:
    return place.in_order or len(place.shape) < 3


def _reading(value: Value, source: Place, moved: Moved) -> float:
    """Return the time that a product takes to read a factor."""
    numbers = prod(value.shape)
    if not moved:
        return 0 if _has_rows(source) else STRIDED * numbers
    apart = strided.apart(moves.lies(source, moved))
    if apart is None:
        return RUN * numbers
    return 0 if 1 in apart else STRIDED * numbers


def _moving(
    operation: Operation, given: Sequence[Value], sources: Sequence[Place], moved: Sequence[Moved], result: Place
) -> float:
    """Return the time of a move; one that changes nothing takes none."""
    found, shapes = 0.0, [value.shape for value in given]
    for which, (source, before) in enumerate(zip(sources, moved, strict=True)):
        runs = moves.runs(operation, which, source, before, shapes, result)
        if len(runs) == 1 and source.size == result.size:
            continue
        found += RUN * runs[:, 3].sum() + NUMBER * (runs[:, 2] * runs[:, 3]).sum()
    return found
