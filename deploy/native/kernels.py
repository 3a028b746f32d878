"""The kernel of an integer layer and its settings."""

from __future__ import annotations

from functools import partial
from typing import Any

import numpy as np
from numpy.typing import NDArray

from deploy.native import bits, depthwise, matrices, steps, tiles
from deploy.native.draft import Draft
from deploy.native.formats import Format, by_signs, geometry, is_depthwise, largest_byte
from deploy.native.layout import Place
from deploy.native.matrices import Geometry
from deploy.operations.base import Value


def kernel(
    draft: Draft, operation: Any, value: Value, values: NDArray[np.int64], held: Format, source: int, number: int
) -> tuple[int, dict[str, Any]]:
    """Return the step of an integer layer, and the settings of its kernel."""
    place = draft.place(source)
    draft.read_by_windows(place, operation, draft.program.values[number + 1].shape)
    if held.kind == steps.BITS:
        assert by_signs(operation, value)
        return steps.SIGNS, {"later": partial(_counted, draft, values, geometry(operation))}
    if is_depthwise(operation):
        planes = depthwise.in_bytes(values) if held.kind == steps.BYTE and draft.widths.depthwise_lanes else None
        if planes is not None:
            return steps.DEPTHWISE, {
                "planes": len(planes),
                "later": partial(depthwise.settings, planes, geometry(operation), draft.widths),
            }
        return steps.DEPTHWISE, {"weight": np.ascontiguousarray(values[:, 0].transpose(1, 2, 0).astype(np.int16))}
    unit = 4 if held.kind == steps.BYTE else 2
    deep = 0 if unit == 2 or draft.widths.whole else matrices.depth(operation.matrix.weight, largest_byte(value.grid))
    told: dict[str, Any] = {"what": int(unit == 4), "depth": deep}
    if unit == 4 and not matrices.fit_bytes(operation.matrix.weight):
        found = matrices.halves(operation.matrix.weight)
        assert found is not None
        values = found.stored
        told |= {"factor": found.factor, "each": draft.channels(found.each)}
    return steps.LAYER, {**told, "later": partial(_blocks, draft, values, geometry(operation), unit)}


# settings that depend on borders, which other layers' windows may widen until the end


def _blocks(
    draft: Draft,
    values: NDArray[np.int64],
    form: Geometry,
    unit: int,
    settings: dict[str, Any],
    source: Place,
    result: Place,
) -> dict[str, Any]:
    if unit == 4 and draft.widths.tiles and (way := tiles.cut(values.shape, form, source, result)) is not None:
        weight, offsets, outputs = tiles.tiles(values, form, source, way)
        told = {"what": 2, "depth": way.size, "joined": way.joined, "count": offsets.shape[1]}
        return {**told, "weight": weight, "offsets": offsets, "outputs": outputs}
    weight, offsets, outputs, count = matrices.blocks(values, form, source, unit, draft.widths)
    return {"weight": weight, "offsets": offsets, "outputs": outputs, "count": count}


def _counted(
    draft: Draft, values: NDArray[np.int64], form: Geometry, settings: dict[str, Any], source: Place, result: Place
) -> dict[str, Any]:
    found = bits.settings(values, form, source, result, draft.widths.counted)
    if result.kind == steps.BITS and source.planes == 1:
        limits = bits.limits(found["base"], found["depth"], settings["bias"], settings["bounds"], result.sides[2])
        return {**found, "limits": limits}
    return found
