"""The steps of a layer with weights, and of the max-pools of its codes. kernels.py chooses the kernel on integers."""

from __future__ import annotations

from typing import Any

import numpy as np

from deploy.executors import plans
from deploy.native import bits, matrices, steps
from deploy.native.draft import Draft, coding
from deploy.native.formats import geometry, is_depthwise
from deploy.native.kernels import kernel
from deploy.native.layout import Place
from deploy.native.numbers import windows
from deploy.operations.base import Codes
from deploy.operations.layers import Convolution, Linear


def layer(draft: Draft, number: int, operation: Convolution | Linear) -> set[int]:
    """Add the steps of a layer; return the values that they compute, later operations' values included."""
    source = operation.sources[0]
    value, form = draft.program.values[source], geometry(operation)
    reach: dict[str, Any] = {"kernel": form.kernel, "stride": form.stride, "padding": form.padding, "dilation": form.dilation,
               "groups": form.groups}  # fmt: skip
    matrix = operation.matrix
    if not matrix.whole(value):
        draft.read_by_windows(draft.place(source), operation, draft.program.values[number + 1].shape)
        by_channel = is_depthwise(operation)
        weight = matrices.wide_depthwise(matrix) if by_channel else matrices.wide(matrix, form.groups)
        told: dict[str, Any] = {
            "what": int(by_channel),
            "weight": weight,
            "scale": matrix.scale,
            "shift": matrix.shift,
        }
        draft.add(steps.WIDE, (source,), number, **told, **reach)
        return {number + 1}
    assert isinstance(matrix.weight, Codes)
    values = matrices.whole(matrix.weight)
    bias = np.zeros(len(values), np.int64) if matrix.bias is None else matrix.bias.astype(np.int64)
    held = draft.formats[source]
    if held.kind == steps.BYTE and value.grid is not None:  # byte = code - lowest code
        bias = bias - held.zero * values.reshape(len(values), -1).sum(1)
    settings: dict[str, Any] = {
        **reach, "bias": draft.channels(bias),
        "scale": draft.numbers(matrix.scale), "shift": draft.numbers(matrix.shift),
    }  # fmt: skip
    if held.kind == steps.BITS and bits.in_threes(values, held.planes):
        source = _threes(draft, source, number)
    kind, own = kernel(draft, operation, value, values, held, source, number)
    sources = (source, *_totals(draft, operation, source, number, reach)) if "each" in own else (source,)
    if (chain := plans.chain(draft.program, number, draft.readers)) is not None:
        settings |= {"coded": 1, **coding(chain.grid), "low": chain.low, "high": chain.high}
        return _pooled(draft, kind, sources, number, {**settings, **own}, chain)
    if (signs := plans.signs(draft.program, number, draft.readers)) is not None:
        if draft.formats[signs.covered[-1]].kind == steps.BITS:
            settings |= bits.bounds(matrix, signs.grid, len(values), draft.widths.lanes)
        return _pooled(draft, kind, sources, number, {"coded": 1, **coding(signs.grid), **settings, **own}, signs)
    draft.add(kind, sources, number, **settings, **own)
    return {number + 1}


def _threes(draft: Draft, source: int, number: int) -> int:
    """Return a value with the same signs in the form of source/threes.h; all layers that read them share it."""
    if source not in draft.threes:
        draft.threes[source] = draft.new(Place(draft.place(source).shape, steps.BITS, in_threes=True))
        draft.add(steps.THREES, (source,), number, result=draft.threes[source])
    return draft.threes[source]


def _totals(
    draft: Draft, operation: Convolution | Linear, source: int, number: int, reach: dict[str, Any]
) -> tuple[int]:
    """Add a value with the sum of each window's bytes; see matrices.Halves."""
    shape = draft.program.values[number + 1].shape
    each = (reach["groups"], *shape[1:]) if isinstance(operation, Convolution) else (*shape[:-1], 1)
    total = draft.new(Place(each, steps.WHOLE))
    draft.add(steps.TOTALS, (source,), number, result=total, **reach)
    return (total,)


def _pooled(
    draft: Draft,
    kind: int,
    sources: tuple[int, ...],
    number: int,
    settings: dict[str, Any],
    chain: plans.Chain | plans.SignChain,
) -> set[int]:
    """Add a layer that gives codes, and the max-pools of these codes."""
    final = chain.covered[-1]
    held, shape = draft.formats[final], draft.program.values[number + 1].shape

    def value_of(step: int) -> int:
        """Return the number of the value that pool `step` reads, or of the final value."""
        if step == len(chain.pools):
            return final
        return draft.new(Place(shape, held.kind, held.planes, held.zero))

    at = value_of(0)
    draft.add(kind, sources, number, result=at, **settings)
    for step, (pool, value) in enumerate(chain.pools, 1):
        reach = windows(pool)
        shape = draft.program.values[value].shape
        before, at = at, value_of(step)
        draft.add(steps.MAXPOOL, (before,), value - 1, result=at, **reach)
    return {*chain.covered}
