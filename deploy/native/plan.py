"""plan(program): the steps of the engine, the arrays that they read, and the arena that they work in."""

from __future__ import annotations

import ctypes
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from numpy.typing import NDArray

from deploy.executors import plans
from deploy.native import matrices, moves, steps
from deploy.native.formats import Format, by_signs, formats, geometry, is_depthwise, largest_byte
from deploy.native.layout import Place, arranged
from deploy.native.numbers import step_of, windows
from deploy.operations.base import Codes, Operation, Value, padding_of_windows
from deploy.operations.functions import Constant
from deploy.operations.layers import Convolution, Linear, Quantize
from deploy.program import Program
from models.layers.quantizers.base import Signs, Steps


@dataclass
class Planned:
    """A step before the memory is laid out.

    Args:
        operation: as the engine calls it.
        sources, result: numbers of values.
        settings: the other fields of steps.Step; arrays are kept and pointed at.
        number: the operation of the program that it is of.
    """

    operation: int
    sources: tuple[int, ...]
    result: int
    settings: dict[str, Any]
    number: int


@dataclass
class Plan:
    """What the engine runs.

    Args:
        steps: a ctypes array.
        places: of each value that has one.
        arena: bytes for one picture.
        constants: what stands in the arena before the first picture: the place of a value and its numbers.
        by_reference: operations that the reference computes, by the number of their step.
    """

    steps: Any
    places: dict[int, Place]
    arena: int
    constants: list[tuple[int, NDArray[np.float32]]]
    by_reference: dict[int, int]
    kept: list[NDArray[Any]] = field(default_factory=list)


def plan(program: Program) -> Plan:
    return _Planner(program).plan()


class _Planner:
    def __init__(self, program: Program) -> None:
        self.program = program
        self.readers = plans.readers(program)
        self.formats = formats(program)
        self.places: dict[int, Place] = {0: Place(program.picture)}
        self.made: list[Planned] = []
        self.constants: list[tuple[int, NDArray[np.float32]]] = []
        self.extra = len(program.values)  # numbers of values that the program has not: codes before a pool

    def plan(self) -> Plan:
        done: set[int] = set()
        for number, operation in enumerate(self.program.operations):
            if number + 1 not in done:
                done |= self._operation(number, operation)
        return self._laid_out()

    # what each operation becomes

    def _operation(self, number: int, operation: Operation) -> set[int]:
        """Add the steps of an operation; gives the values that they make, those of operations behind it among them."""
        sources = operation.sources
        if isinstance(operation, (Convolution, Linear)) and self._is_layer(operation):
            return self._layer(number, operation)
        if isinstance(operation, Constant):
            self.places[number + 1] = Place(operation.numbers.shape)
            self.constants.append((number + 1, operation.numbers))
        elif isinstance(operation, Quantize):
            self._add(steps.QUANTIZE, sources, number, **_grid(operation.grid))
        elif moves.known(operation) and self._can_move(operation):
            for which, source in enumerate(sources):
                self._add(steps.MOVE, (source,), number, which=which, last=which == len(sources) - 1)
        elif (found := self._on_numbers(number, operation)) is not None:
            kind, settings = found
            self._add(kind, sources, number, **settings)
        else:
            self._add(steps.REFERENCE, sources, number)
        return {number + 1}

    def _is_layer(self, operation: Convolution | Linear) -> bool:
        shape = self.program.values[operation.sources[0]].shape
        return len(shape) <= 2 if isinstance(operation, Linear) else True

    def _can_move(self, operation: Operation) -> bool:
        held = (self.formats.get(source) for source in operation.sources)
        return all(each is None or each.kind != steps.BITS for each in held)

    def _on_numbers(self, number: int, operation: Operation) -> tuple[int, dict[str, Any]] | None:
        values = self.program.values
        return step_of(operation, [values[source] for source in operation.sources], values[number + 1].shape)

    def _layer(self, number: int, operation: Convolution | Linear) -> set[int]:
        source = operation.sources[0]
        value, form = self.program.values[source], geometry(operation)
        reach: dict[str, Any] = {"kernel": form.kernel, "stride": form.stride, "padding": form.padding, "dilation": form.dilation,
                   "groups": form.groups}  # fmt: skip
        matrix = operation.matrix
        if not matrix.whole(value):
            weight = matrices.doubles(matrix, form.groups)
            self._add(steps.WIDE, (source,), number, weight=weight, scale=matrix.scale, shift=matrix.shift, **reach)
            return {number + 1}
        assert isinstance(matrix.weight, Codes)
        values = matrices.whole(matrix.weight)
        bias = np.zeros(len(values), np.int64) if matrix.bias is None else matrix.bias.astype(np.int64)
        held = self.formats[source]
        if held.kind == steps.BYTE and value.grid is not None:  # bytes are counted from the lowest code
            bias = bias - held.zero * values.reshape(len(values), -1).sum(1)
        settings: dict[str, Any] = {
            **reach, "bias": _wrapped(bias),
            "scale": matrix.scale, "shift": matrix.shift,
        }  # fmt: skip
        kind, own = self._kernel(operation, value, values, held, source, number)
        chain = plans.chain(self.program, number, self.readers)
        signs = self._signs_behind(number)
        if chain is not None:
            settings |= {"coded": 1, **_grid(chain.grid)}
            if chain.relu:  # the code of 0 is 0, and codes grow with numbers
                settings["low"] = max(chain.grid.low, 0)
            return self._pooled(kind, source, number, {**settings, **own}, chain)
        if signs is not None:
            grid = self.program.operations[signs - 1]
            assert isinstance(grid, Quantize)
            self._add(kind, (source,), number, result=signs, coded=1, **_grid(grid.grid), **settings, **own)
            return {number + 1, signs}
        self._add(kind, (source,), number, **settings, **own)
        return {number + 1}

    def _signs_behind(self, number: int) -> int | None:
        """The value in signs that a layer's sums become, where nothing else reads them."""
        if len(readers := self.readers[number + 1]) == 1:
            operation = self.program.operations[readers[0]]
            if isinstance(operation, Quantize) and isinstance(operation.grid, Signs):
                return readers[0] + 1
        return None

    def _kernel(
        self, operation: Any, value: Value, values: NDArray[np.int64], held: Format, source: int, number: int
    ) -> tuple[int, dict[str, Any]]:
        """The step of a layer on whole numbers, and what that kernel alone is told."""
        if held.kind == steps.BITS:
            assert by_signs(operation, value)
            packed, planes, words = matrices.bits(values)
            return steps.SIGNS, {
                "weight": packed, "count": words, "depth": matrices.only_signs(operation.matrix.weight),
                "what": int(held.planes == 2) + 2 * int(planes == 2),
            }  # fmt: skip
        place = self._place(source)
        self._read_by_windows(place, operation, self.program.values[number + 1].shape)
        if is_depthwise(operation):
            return steps.DEPTHWISE, {"weight": np.ascontiguousarray(values[:, 0].transpose(1, 2, 0).astype(np.int16))}
        unit = 4 if held.kind == steps.BYTE else 2
        deep = matrices.depth(operation.matrix.weight, largest_byte(value.grid)) if unit == 4 else 0
        # offsets hang on the border, which windows of other layers may widen still: made when all are known
        return steps.LAYER, {"what": int(unit == 4), "depth": deep, "blocks": (values, geometry(operation), unit)}

    def _read_by_windows(self, place: Place, operation: Convolution | Linear, shape: tuple[int, ...]) -> None:
        """Let a value have the border that a layer's windows reach over."""
        if isinstance(operation, Convolution):
            form = geometry(operation)
            above, below, left, right = padding_of_windows(
                place.shape[1:], shape[1:], form.kernel, form.stride, operation.padding, form.dilation
            )
            place.widened(above, left, below, right)

    def _pooled(self, kind: int, source: int, number: int, settings: dict[str, Any], chain: plans.Chain) -> set[int]:
        """A layer that gives codes, and the max-pools of these codes."""
        final = chain.covered[-1]
        held, shape = self.formats[final], self.program.values[number + 1].shape

        def value_of(step: int) -> int:
            """The number of the value in codes before a pool, or of the last one."""
            if step == len(chain.pools):
                return final
            self.places[self.extra] = Place(shape, held.kind, held.planes, held.zero)
            self.extra += 1
            return self.extra - 1

        at = value_of(0)
        self._add(kind, (source,), number, result=at, **settings)
        for step, (pool, value) in enumerate(chain.pools, 1):
            reach = windows(pool)
            shape = self.program.values[value].shape
            before, at = at, value_of(step)
            self._add(steps.MAXPOOL, (before,), value - 1, result=at, **reach)
        return {*chain.covered}

    # values and steps

    def _place(self, value: int) -> Place:
        if value not in self.places:
            held = self.formats.get(value, Format(steps.FLOAT))
            self.places[value] = Place(self.program.values[value].shape, held.kind, held.planes, held.zero)
        return self.places[value]

    def _add(
        self, kind: int, sources: tuple[int, ...], number: int, result: int | None = None, **settings: Any
    ) -> None:
        result = number + 1 if result is None else result
        for value in (*sources, result):
            self._place(value)
        self.made.append(Planned(kind, sources, result, settings, number))

    def _laid_out(self) -> Plan:
        """Places in memory, and the steps with their pointers."""
        order = sorted(self.places)
        last_step = len(self.made)
        begin = dict.fromkeys(order, last_step) | {0: -1} | {value: -1 for value, _ in self.constants}
        end = {value: last_step for value, _ in self.constants} | {len(self.program.values) - 1: last_step}
        for place, step in enumerate(self.made):
            begin[step.result] = min(begin[step.result], place)
            for value in (*step.sources, step.result):
                end[value] = max(end.get(value, -1), place)
        arena = arranged([self.places[v] for v in order], [begin[v] for v in order], [end.get(v, -1) for v in order])
        found = Plan((steps.Step * len(self.made))(), self.places, arena, self.constants, {})
        for place, step in enumerate(self.made):
            if step.operation == steps.REFERENCE:
                found.by_reference[place] = step.number
            found.steps[place] = self._told(step, found.kept)
        return found

    def _told(self, planned: Planned, kept: list[NDArray[Any]]) -> steps.Step:
        settings = dict(planned.settings)
        source = self.places[planned.sources[0]] if planned.sources else self.places[planned.result]
        if planned.operation == steps.MOVE:
            operation = self.program.operations[planned.number]
            sources = [self.places[value] for value in operation.sources]
            runs = moves.runs(operation, settings.pop("which"), sources, self.places[planned.result])
            fill = getattr(operation, "fill", 0.0)
            zero = self.places[planned.result].zero
            last = settings.pop("last")
            settings = {
                "runs": runs,
                "count": len(runs),
                "numbers": (fill if source.kind == steps.FLOAT else zero, float(not last)),
            }
        if "blocks" in settings:
            values, form, unit = settings.pop("blocks")
            weight, offsets, outputs, count = matrices.blocks(values, form, source, unit)
            settings |= {"weight": weight, "offsets": offsets, "outputs": outputs, "count": count}
        step = steps.Step(operation=planned.operation, groups=1)
        step.source, step.result = source.told(), self.places[planned.result].told()
        step.other = self.places[planned.sources[1]].told() if len(planned.sources) > 1 else step.source
        for name, value in settings.items():
            if isinstance(value, np.ndarray):
                kept.append(np.ascontiguousarray(value))
                value = kept[-1].ctypes.data_as(ctypes.c_void_p)
            if value is not None:
                setattr(step, name, tuple(value) if isinstance(value, (tuple, list)) else value)
        return step


def _wrapped(bias: NDArray[np.int64]) -> NDArray[np.int32]:
    """Sums of bytes may pass int32 on their way; what they come to does not, modulo 2^32."""
    return (bias & 0xFFFFFFFF).astype(np.uint32).view(np.int32)


def _grid(grid: Steps | Signs) -> dict[str, Any]:
    if isinstance(grid, Signs):
        return {"signs": 1, "edge": -1.0 if grid.edge is None else grid.edge}
    return {"signs": 0, "inverse": grid.inverse, "low": grid.low, "high": grid.high}
