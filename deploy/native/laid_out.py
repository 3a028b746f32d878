"""Lay out steps for the engine: values with their places in the arena, arrays with their pointers."""

from __future__ import annotations

import ctypes
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from numpy.typing import NDArray

from deploy.native import steps
from deploy.native.layout import ALIGNED, Place, arranged

FIELDS = frozenset(field[0] for field in steps.Step._fields_)
Later = Callable[[dict[str, Any], Place, Place], dict[str, Any]]


@dataclass
class Planned:
    """A step before the memory is laid out.

    Args:
        operation: the engine's number of the operation.
        sources, result: numbers of values.
        settings: other fields of steps.Step; arrays are kept and passed as pointers.
        later: called with the settings, the first source and the result once all places and borders are known; returns
            more settings.
        number: of the program's operation that the step belongs to.
    """

    operation: int
    sources: tuple[int, ...]
    result: int
    settings: dict[str, Any]
    number: int
    later: Later | None = None


@dataclass
class Plan:
    """The steps and the memory that the engine needs.

    Args:
        steps: a ctypes array.
        places: by the number of the value.
        arena: bytes for one picture.
        constants: values to write into the arena before the first picture: the value's number and its numbers.
        by_reference: operations that the reference computes, by the number of their step.
        numbers: for each step, the program's operation.
        kept: arrays that the steps point at.
    """

    steps: Any
    places: dict[int, Place]
    arena: int
    constants: list[tuple[int, NDArray[np.float32]]]
    by_reference: dict[int, int]
    numbers: list[int]
    kept: list[NDArray[Any]] = field(default_factory=list)


def laid_out(
    made: list[Planned], places: dict[int, Place], constants: list[tuple[int, NDArray[np.float32]]], answer: int
) -> Plan:
    """Give each value its place in the arena and return the plan of the steps.

    Args:
        answer: the number of the value that is the network's answer.
    """
    settings = [_settings(step, places) for step in made]
    same = _same(made, settings, places)
    kept = [number for number, step in enumerate(made) if step.result not in same]
    made, settings = [made[number] for number in kept], [settings[number] for number in kept]
    order, last = sorted({*places} - same.keys()), len(made)
    begin = dict.fromkeys(order, last) | {0: -1} | {value: -1 for value, _ in constants}
    end = {value: last for value, _ in constants} | {same.get(answer, answer): last}
    for number, step in enumerate(made):
        begin[step.result] = min(begin[step.result], number)
        for value in (*step.sources, step.result):
            value = same.get(value, value)
            end[value] = max(end.get(value, -1), number)
    arena = arranged([places[v] for v in order], [begin[v] for v in order], [end.get(v, -1) for v in order])
    for value, origin in same.items():
        places[value].at = places[origin].at
    found = Plan((steps.Step * last)(), places, arena, constants, {}, [step.number for step in made])
    for number, (step, told) in enumerate(zip(made, settings, strict=True)):
        if step.operation == steps.REFERENCE:
            found.by_reference[number] = step.number
        found.steps[number] = _told(step, told, places, found.kept)
    return found


def _settings(step: Planned, places: dict[int, Place]) -> dict[str, Any]:
    if step.later is None:
        return step.settings
    return step.settings | step.later(step.settings, places[step.sources[0]], places[step.result])


def _same(made: list[Planned], settings: list[dict[str, Any]], places: dict[int, Place]) -> dict[int, int]:
    """Return the values whose numbers lie as another value's do, with that value: such moves need no step."""
    found: dict[int, int] = {}
    for step, told in zip(made, settings, strict=True):
        source, result = step.sources[0] if step.sources else -1, places[step.result]
        if step.operation != steps.MOVE or places[source].kind != result.kind or places[source].size != result.size:
            continue
        runs = told["runs"]
        if len(runs) == 1 and (*runs[0, :4],) == (0, 0, result.size // steps.SIZES[result.kind], 1):
            found[step.result] = found.get(source, source)
    return found


def _told(planned: Planned, settings: dict[str, Any], places: dict[int, Place], kept: list[NDArray[Any]]) -> steps.Step:
    result = places[planned.result]
    sources = [places[value] for value in planned.sources] or [result]
    step = steps.Step(operation=planned.operation, groups=1)
    step.source, step.other, step.result = sources[0].told(), sources[-1].told(), result.told()
    for name, value in settings.items():
        if isinstance(value, np.ndarray):
            kept.append(_aligned(np.ascontiguousarray(value)))
            value = kept[-1].ctypes.data_as(ctypes.c_void_p)
        if name not in FIELDS:  # a structure would take any attribute, and compute with 0
            raise AttributeError(f"steps.Step has no field {name}")
        if value is not None:
            setattr(step, name, tuple(value) if isinstance(value, (tuple, list)) else value)
    return step


def _aligned(array: NDArray[Any]) -> NDArray[Any]:
    """Return an array aligned to a cache line: reading a vector across two lines takes twice as long."""
    if array.ctypes.data % ALIGNED == 0:
        return array
    room = np.empty(array.nbytes + ALIGNED, np.uint8)
    begin = -room.ctypes.data % ALIGNED
    held = room[begin : begin + array.nbytes].view(array.dtype).reshape(array.shape)
    held[...] = array
    return held
