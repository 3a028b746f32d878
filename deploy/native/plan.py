"""plan(program): the steps of the engine, the arrays that they read, and the arena that they work in."""

from __future__ import annotations

import ctypes
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from numpy.typing import NDArray

from deploy.executors import plans
from deploy.native import bits, matrices, moves, steps
from deploy.native.formats import Format, by_signs, formats, geometry, is_depthwise, largest_byte
from deploy.native.layout import Place, arranged
from deploy.native.numbers import step_of, windows
from deploy.native.steps import Widths
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
        numbers: of each step, the operation of the program.
    """

    steps: Any
    places: dict[int, Place]
    arena: int
    constants: list[tuple[int, NDArray[np.float32]]]
    by_reference: dict[int, int]
    numbers: list[int]
    kept: list[NDArray[Any]] = field(default_factory=list)


def plan(program: Program, widths: Widths) -> Plan:
    """
    Args:
        widths: of the instruction set that is to run it.
    """
    return _Planner(program, widths).plan()


class _Planner:
    def __init__(self, program: Program, widths: Widths) -> None:
        self.program, self.widths = program, widths
        self.readers = plans.readers(program)
        self.formats = formats(program, widths.whole)
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
                self._add(steps.MOVE, (source,), number, which=which)
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
            self._read_by_windows(self._place(source), operation, self.program.values[number + 1].shape)
            apart = is_depthwise(operation)
            weight = matrices.wide_apart(matrix) if apart else matrices.wide(matrix, form.groups)
            told = {"what": int(apart), "weight": weight, "scale": matrix.scale, "shift": matrix.shift}
            self._add(steps.WIDE, (source,), number, **told, **reach)
            return {number + 1}
        assert isinstance(matrix.weight, Codes)
        values = matrices.whole(matrix.weight)
        bias = np.zeros(len(values), np.int64) if matrix.bias is None else matrix.bias.astype(np.int64)
        held = self.formats[source]
        if held.kind == steps.BYTE and value.grid is not None:  # bytes are counted from the lowest code
            bias = bias - held.zero * values.reshape(len(values), -1).sum(1)
        settings: dict[str, Any] = {
            **reach, "bias": np.pad(_wrapped(bias), (0, self.widths.most)),
            "scale": matrix.scale, "shift": matrix.shift,
        }  # fmt: skip
        kind, own = self._kernel(operation, value, values, held, source, number)
        sources = (source, *self._totals(operation, source, number, reach)) if "each" in own else (source,)
        if (chain := plans.chain(self.program, number, self.readers)) is not None:
            settings |= {"coded": 1, **_grid(chain.grid), "low": chain.low, "high": chain.high}
            return self._pooled(kind, sources, number, {**settings, **own}, chain)
        if (signs := plans.signs(self.program, number, self.readers)) is not None:
            if self.formats[signs.covered[-1]].kind == steps.BITS:
                settings |= bits.bounds(matrix, signs.grid, len(values), self.widths.lanes)
            return self._pooled(kind, sources, number, {"coded": 1, **_grid(signs.grid), **settings, **own}, signs)
        self._add(kind, sources, number, **settings, **own)
        return {number + 1}

    def _totals(self, operation: Convolution | Linear, source: int, number: int, reach: dict[str, Any]) -> tuple[int]:
        """The value that holds what each window of bytes sums to; see matrices.Halves."""
        shape = self.program.values[number + 1].shape
        each = (reach["groups"], *shape[1:]) if isinstance(operation, Convolution) else (*shape[:-1], 1)
        self.places[self.extra] = Place(each, steps.WHOLE)
        self.extra += 1
        self._add(steps.TOTALS, (source,), number, result=self.extra - 1, **reach)
        return (self.extra - 1,)

    def _kernel(
        self, operation: Any, value: Value, values: NDArray[np.int64], held: Format, source: int, number: int
    ) -> tuple[int, dict[str, Any]]:
        """The step of a layer on whole numbers, and what that kernel alone is told."""
        place = self._place(source)
        self._read_by_windows(place, operation, self.program.values[number + 1].shape)
        # offsets hang on the border, which windows of other layers may widen still: made when all are known
        if held.kind == steps.BITS:
            assert by_signs(operation, value)
            return steps.SIGNS, {"signs_of": (values, geometry(operation))}
        if is_depthwise(operation):
            if held.kind == steps.BYTE and self.widths.apart and matrices.fit_bytes(operation.matrix.weight):
                return steps.DEPTHWISE, {"what": 1, "taps": (values, geometry(operation))}
            return steps.DEPTHWISE, {"weight": np.ascontiguousarray(values[:, 0].transpose(1, 2, 0).astype(np.int16))}
        unit = 4 if held.kind == steps.BYTE else 2
        deep = 0 if unit == 2 or self.widths.whole else matrices.depth(operation.matrix.weight, largest_byte(value.grid))
        told: dict[str, Any] = {"what": int(unit == 4), "depth": deep}
        if unit == 4 and not matrices.fit_bytes(operation.matrix.weight):
            found = matrices.halves(operation.matrix.weight)
            assert found is not None
            values = found.stored
            told |= {"factor": found.factor, "each": np.pad(_wrapped(found.each), (0, self.widths.most))}
        return steps.LAYER, {**told, "blocks": (values, geometry(operation), unit)}

    def _read_by_windows(self, place: Place, operation: Convolution | Linear, shape: tuple[int, ...]) -> None:
        """Let a value have the border that a layer's windows reach over."""
        if isinstance(operation, Convolution):
            form = geometry(operation)
            above, below, left, right = padding_of_windows(
                place.shape[1:], shape[1:], form.kernel, form.stride, operation.padding, form.dilation
            )
            place.widened(above, left, below, right)

    def _pooled(
        self, kind: int, sources: tuple[int, ...], number: int, settings: dict[str, Any], chain: plans.Chain | plans.SignChain
    ) -> set[int]:
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
        self._add(kind, sources, number, result=at, **settings)
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
        found = Plan((steps.Step * len(self.made))(), self.places, arena, self.constants, {}, [step.number for step in self.made])
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
            settings = {
                "runs": runs,
                "count": len(runs),
                "numbers": (fill if source.kind == steps.FLOAT else zero, 0.0),
            }
        if "blocks" in settings:
            values, form, unit = settings.pop("blocks")
            weight, offsets, outputs, count = matrices.blocks(values, form, source, unit, self.widths)
            settings |= {"weight": weight, "offsets": offsets, "outputs": outputs, "count": count}
        if "taps" in settings:
            weight, offsets = matrices.taps_apart(*settings.pop("taps"), source, self.widths)
            settings |= {"weight": weight, "offsets": offsets, "count": len(offsets)}
        if "signs_of" in settings:
            result = self.places[planned.result]
            settings |= bits.settings(*settings.pop("signs_of"), source, result, self.widths.counted)
            if result.kind == steps.BITS and source.planes == 1:
                told = (settings[name] for name in ("base", "depth", "bias", "bounds"))
                settings["limits"] = bits.limits(*told, result.sides[2])
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
