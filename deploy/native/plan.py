"""plan(program): plan the engine's steps, the arrays that they read, and the arena that they work in."""

from __future__ import annotations

from functools import partial
from typing import Any, cast

from deploy.native import moves, steps, strided
from deploy.native.draft import Draft, coding
from deploy.native.laid_out import Plan, laid_out
from deploy.native.layers import layer
from deploy.native.layout import Place
from deploy.native.numbers import step_of
from deploy.native.orders import chosen
from deploy.native.steps import Widths
from deploy.operations.base import Operation
from deploy.operations.functions import Constant, Product
from deploy.operations.layers import Convolution, Linear, Quantize
from deploy.program import Program


def plan(program: Program, widths: Widths) -> Plan:
    """Return the plan of a program.

    Args:
        widths: of the instruction set that runs it.
    """
    return _Planner(program, widths).plan()


class _Planner:
    def __init__(self, program: Program, widths: Widths) -> None:
        self.program, self.draft = program, Draft(program, widths)
        self.draft.in_order = chosen(self.draft)

    def plan(self) -> Plan:
        done: set[int] = set()
        for number, operation in enumerate(self.program.operations):
            if number + 1 not in done:
                done |= self._operation(number, operation)
        return laid_out(self.draft.made, self.draft.places, self.draft.constants, len(self.program.values) - 1)

    def _operation(self, number: int, operation: Operation) -> set[int]:
        """Add the steps of an operation; return the values that they compute, later operations' values included."""
        sources = operation.sources
        if isinstance(operation, (Convolution, Linear)) and self._is_layer(operation):
            return layer(self.draft, number, operation)
        if isinstance(operation, Constant):
            self.draft.place(number + 1)
            self.draft.constants.append((number + 1, operation.numbers))
        elif isinstance(operation, Quantize):
            self.draft.add(steps.QUANTIZE, sources, number, **coding(operation.grid))
        elif moves.known(operation) and self._can_move(operation):
            if number + 1 not in self.draft.joined:
                self._move(number, operation)
        elif isinstance(operation, Product):
            self._product(number, operation)
        elif (found := self._on_numbers(operation, number)) is not None:
            kind, settings = found
            later = partial(_over, cast(strided.Combining, operation)) if kind == steps.OVER else None
            self.draft.add(kind, sources, number, later=later, **settings)
        else:
            self.draft.add(steps.REFERENCE, sources, number)
        return {number + 1}

    def _is_layer(self, operation: Convolution | Linear) -> bool:
        shape = self.program.values[operation.sources[0]].shape
        return len(shape) <= 2 if isinstance(operation, Linear) else True

    def _move(self, number: int, operation: Operation) -> None:
        for which, source in enumerate(operation.sources):
            first, before = self.draft.joined.origin(source)
            self.draft.add(steps.MOVE, (first,), number, later=partial(self._runs, operation, which, before))

    def _product(self, number: int, operation: Product) -> None:
        """Add a product. It reads factors where moves in front of it find them, if the distances there are equal."""
        factors = [self.draft.joined.origin(source) for source in operation.sources]
        for which, (source, (first, before)) in enumerate(zip(operation.sources, factors, strict=True)):
            if before and not self._reads(first, before):
                self._move(source - 1, self.program.operations[source - 1])
                factors[which] = (source, ())
        self.draft.add(
            steps.PRODUCT, tuple(first for first, _ in factors), number, later=partial(self._matrices, factors)
        )

    def _reads(self, source: int, moved: tuple[Operation, ...]) -> bool:
        """Return whether a product can read a stored value behind some moves.

        A layer that reads it, too, may still widen its border, and with it the distances.
        """
        if any(isinstance(self.program.operations[reader], Convolution) for reader in self.draft.readers[source]):
            return False
        return strided.apart(moves.lies(self.draft.place(source), moved)) is not None

    def _matrices(
        self, factors: list[tuple[int, tuple[Operation, ...]]], settings: dict[str, Any], source: Place, result: Place
    ) -> dict[str, Any]:
        return strided.product(
            [moves.lies(self.draft.place(first), before) for first, before in factors], result.order()
        )

    def _can_move(self, operation: Operation) -> bool:
        held = (self.draft.formats.get(source) for source in operation.sources)
        return all(each is None or each.kind != steps.BITS for each in held)

    def _on_numbers(self, operation: Operation, number: int) -> tuple[int, dict[str, Any]] | None:
        given = [self.program.values[source] for source in operation.sources]
        return step_of(
            operation, given, [self.draft.place(source) for source in operation.sources], self.draft.place(number + 1)
        )

    def _runs(
        self, operation: Operation, which: int, before: tuple[Operation, ...], settings: dict[str, Any], source: Place,
        result: Place,
    ) -> dict[str, Any]:  # fmt: skip
        shapes = [self.program.values[value].shape for value in operation.sources]
        runs = moves.runs(operation, which, source, before, shapes, result)
        fill = getattr(operation, "fill", 0.0) if source.kind == steps.FLOAT else result.zero
        return {"runs": runs, "count": len(runs), "numbers": (fill, 0.0)}


def _over(operation: strided.Combining, settings: dict[str, Any], source: Place, result: Place) -> dict[str, Any]:
    return strided.over(operation, source, result)
