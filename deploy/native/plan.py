"""plan(program): plan the engine's steps, the arrays that they read, and the arena that they work in."""

from __future__ import annotations

from functools import partial
from typing import Any

import numpy as np
from numpy.typing import NDArray

from deploy.executors import plans
from deploy.native import bits, depthwise, matrices, moves, steps, tiles
from deploy.native.formats import Format, by_signs, formats, geometry, is_depthwise, largest_byte
from deploy.native.laid_out import Later, Plan, Planned, laid_out
from deploy.native.layout import Place
from deploy.native.matrices import Geometry
from deploy.native.numbers import step_of, windows
from deploy.native.steps import Widths
from deploy.operations.base import Codes, Operation, Value, padding_of_windows
from deploy.operations.functions import Constant
from deploy.operations.layers import Convolution, Linear, Quantize
from deploy.program import Program
from models.layers.quantizers.base import Signs, Steps


def plan(program: Program, widths: Widths) -> Plan:
    """Return the plan of a program.

    Args:
        widths: of the instruction set that runs it.
    """
    return _Planner(program, widths).plan()


class _Planner:
    def __init__(self, program: Program, widths: Widths) -> None:
        self.program, self.widths = program, widths
        self.readers = plans.readers(program)
        self.formats = formats(program, widths.whole)
        self.places: dict[int, Place] = {0: Place(program.picture)}
        self.made: list[Planned] = []
        self.joined = moves.Joined()
        self.constants: list[tuple[int, NDArray[np.float32]]] = []
        self.extra = len(
            program.values
        )  # number of the next value that only the engine has, such as codes before a pool

    def plan(self) -> Plan:
        done: set[int] = set()
        for number, operation in enumerate(self.program.operations):
            if number + 1 not in done:
                done |= self._operation(number, operation)
        return laid_out(self.made, self.places, self.constants, len(self.program.values) - 1)

    # operations to steps

    def _operation(self, number: int, operation: Operation) -> set[int]:
        """Add the steps of an operation; return the values that they compute, later operations' values included."""
        sources = operation.sources
        if isinstance(operation, (Convolution, Linear)) and self._is_layer(operation):
            return self._layer(number, operation)
        if isinstance(operation, Constant):
            self.places[number + 1] = Place(operation.numbers.shape)
            self.constants.append((number + 1, operation.numbers))
        elif isinstance(operation, Quantize):
            self._add(steps.QUANTIZE, sources, number, **_grid(operation.grid))
        elif moves.known(operation) and self._can_move(operation):
            if not self.joined.leave(
                number + 1, operation, [self.program.operations[n] for n in self.readers[number + 1]]
            ):
                for which, source in enumerate(sources):
                    first, before = self.joined.origin(source)
                    self._add(steps.MOVE, (first,), number, later=partial(self._runs, operation, which, before))
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
            by_channel = is_depthwise(operation)
            weight = matrices.wide_depthwise(matrix) if by_channel else matrices.wide(matrix, form.groups)
            told: dict[str, Any] = {
                "what": int(by_channel),
                "weight": weight,
                "scale": matrix.scale,
                "shift": matrix.shift,
            }
            self._add(steps.WIDE, (source,), number, **told, **reach)
            return {number + 1}
        assert isinstance(matrix.weight, Codes)
        values = matrices.whole(matrix.weight)
        bias = np.zeros(len(values), np.int64) if matrix.bias is None else matrix.bias.astype(np.int64)
        held = self.formats[source]
        if held.kind == steps.BYTE and value.grid is not None:  # byte = code - lowest code
            bias = bias - held.zero * values.reshape(len(values), -1).sum(1)
        settings: dict[str, Any] = {
            **reach, "bias": self._channels(bias),
            "scale": self._numbers(matrix.scale), "shift": self._numbers(matrix.shift),
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
        """Add a value with the sum of each window's bytes; see matrices.Halves."""
        shape = self.program.values[number + 1].shape
        each = (reach["groups"], *shape[1:]) if isinstance(operation, Convolution) else (*shape[:-1], 1)
        total = self._new(Place(each, steps.WHOLE))
        self._add(steps.TOTALS, (source,), number, result=total, **reach)
        return (total,)

    def _kernel(
        self, operation: Any, value: Value, values: NDArray[np.int64], held: Format, source: int, number: int
    ) -> tuple[int, dict[str, Any]]:
        """Return the step of an integer layer, and the settings of its kernel."""
        place = self._place(source)
        self._read_by_windows(place, operation, self.program.values[number + 1].shape)
        if held.kind == steps.BITS:
            assert by_signs(operation, value)
            return steps.SIGNS, {"later": partial(self._counted, values, geometry(operation))}
        if is_depthwise(operation):
            planes = depthwise.in_bytes(values) if held.kind == steps.BYTE and self.widths.depthwise_lanes else None
            if planes is not None:
                return steps.DEPTHWISE, {
                    "planes": len(planes),
                    "later": partial(depthwise.settings, planes, geometry(operation), self.widths),
                }
            return steps.DEPTHWISE, {"weight": np.ascontiguousarray(values[:, 0].transpose(1, 2, 0).astype(np.int16))}
        unit = 4 if held.kind == steps.BYTE else 2
        deep = (
            0 if unit == 2 or self.widths.whole else matrices.depth(operation.matrix.weight, largest_byte(value.grid))
        )
        told: dict[str, Any] = {"what": int(unit == 4), "depth": deep}
        if unit == 4 and not matrices.fit_bytes(operation.matrix.weight):
            found = matrices.halves(operation.matrix.weight)
            assert found is not None
            values = found.stored
            told |= {"factor": found.factor, "each": self._channels(found.each)}
        return steps.LAYER, {**told, "later": partial(self._blocks, values, geometry(operation), unit)}

    # settings that depend on borders, which other layers' windows may widen until the end

    def _runs(
        self, operation: Operation, which: int, before: tuple[Operation, ...], settings: dict[str, Any], source: Place,
        result: Place,
    ) -> dict[str, Any]:  # fmt: skip
        shapes = [self.program.values[value].shape for value in operation.sources]
        runs = moves.runs(operation, which, source, before, shapes, result)
        fill = getattr(operation, "fill", 0.0) if source.kind == steps.FLOAT else result.zero
        return {"runs": runs, "count": len(runs), "numbers": (fill, 0.0)}

    def _blocks(
        self,
        values: NDArray[np.int64],
        form: Geometry,
        unit: int,
        settings: dict[str, Any],
        source: Place,
        result: Place,
    ) -> dict[str, Any]:
        if unit == 4 and self.widths.tiles and (way := tiles.cut(values.shape, form, source, result)) is not None:
            weight, offsets, outputs = tiles.tiles(values, form, source, way)
            told = {"what": 2, "depth": way.size, "joined": way.joined, "count": offsets.shape[1]}
            return {**told, "weight": weight, "offsets": offsets, "outputs": outputs}
        weight, offsets, outputs, count = matrices.blocks(values, form, source, unit, self.widths)
        return {"weight": weight, "offsets": offsets, "outputs": outputs, "count": count}

    def _counted(
        self, values: NDArray[np.int64], form: Geometry, settings: dict[str, Any], source: Place, result: Place
    ) -> dict[str, Any]:
        found = bits.settings(values, form, source, result, self.widths.counted)
        if result.kind == steps.BITS and source.planes == 1:
            limits = bits.limits(found["base"], found["depth"], settings["bias"], settings["bounds"], result.sides[2])
            return {**found, "limits": limits}
        return found

    def _read_by_windows(self, place: Place, operation: Convolution | Linear, shape: tuple[int, ...]) -> None:
        """Widen a value's border as far as a layer's windows reach."""
        if isinstance(operation, Convolution):
            form = geometry(operation)
            above, below, left, right = padding_of_windows(
                place.shape[1:], shape[1:], form.kernel, form.stride, operation.padding, form.dilation
            )
            place.widened(above, left, below, right)

    def _pooled(
        self,
        kind: int,
        sources: tuple[int, ...],
        number: int,
        settings: dict[str, Any],
        chain: plans.Chain | plans.SignChain,
    ) -> set[int]:
        """Add a layer that gives codes, and the max-pools of these codes."""
        final = chain.covered[-1]
        held, shape = self.formats[final], self.program.values[number + 1].shape

        def value_of(step: int) -> int:
            """Return the number of the value that pool `step` reads, or of the final value."""
            if step == len(chain.pools):
                return final
            return self._new(Place(shape, held.kind, held.planes, held.zero))

        at = value_of(0)
        self._add(kind, sources, number, result=at, **settings)
        for step, (pool, value) in enumerate(chain.pools, 1):
            reach = windows(pool)
            shape = self.program.values[value].shape
            before, at = at, value_of(step)
            self._add(steps.MAXPOOL, (before,), value - 1, result=at, **reach)
        return {*chain.covered}

    # values and steps

    def _new(self, place: Place) -> int:
        """Return the number of a new value that only the engine has."""
        self.places[self.extra] = place
        self.extra += 1
        return self.extra - 1

    def _channels(self, numbers: NDArray[np.int64]) -> NDArray[np.int32]:
        """Return numbers of channels, padded with zeros because kernels read whole vectors.

        Intermediate sums of bytes may overflow int32; the final sums are right modulo 2^32.
        """
        return np.pad((numbers & 0xFFFFFFFF).astype(np.uint32).view(np.int32), (0, self.widths.most))

    def _numbers(self, numbers: NDArray[np.float32] | None) -> NDArray[np.float32] | None:
        """Return numbers of channels, padded like `_channels`."""
        return None if numbers is None else np.pad(numbers, (0, self.widths.most))

    def _place(self, value: int) -> Place:
        if value not in self.places:
            held = self.formats.get(value, Format(steps.FLOAT))
            self.places[value] = Place(self.program.values[value].shape, held.kind, held.planes, held.zero)
        return self.places[value]

    def _add(
        self, kind: int, sources: tuple[int, ...], number: int, result: int | None = None, later: Later | None = None,
        **settings: Any,
    ) -> None:  # fmt: skip
        result = number + 1 if result is None else result
        for value in (*sources, result):
            self._place(value)
        self.made.append(Planned(kind, sources, result, settings, number, later))


def _grid(grid: Steps | Signs) -> dict[str, Any]:
    if isinstance(grid, Signs):
        return {"signs": 1, "edge": -1.0 if grid.edge is None else grid.edge}
    return {"signs": 0, "inverse": grid.inverse, "low": grid.low, "high": grid.high}
