"""chosen(draft): choose the values of three and more axes that keep the program's order, the last axis contiguous.

Layers and pools read maps channels last. Products of matrices, softmax and norms over the last axis read contiguous rows.
Operations on each number take both, but all their values alike. Moves between the two orders take time: the choice is
the one with the least time, as times.py estimates it.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

from deploy.native import moves, steps
from deploy.native.draft import Draft
from deploy.native.layout import Place
from deploy.native.times import alike, time_of
from deploy.operations.base import Operation
from deploy.operations.functions import Combine, Constant, Function, Slopes, Softmax, Standardize
from deploy.operations.layers import Affine, Convolution, Decode, Linear, Quantize, Transposed
from deploy.operations.places import Upsample
from deploy.operations.pools import AdaptivePool, AveragePool, MaxPool

ALIKE = (Affine, Combine, Decode, Function, Quantize, Slopes, Softmax, Standardize)
"""Operations whose values have one order."""
MAPS = (Convolution, Linear, Transposed, MaxPool, AveragePool, AdaptivePool)
"""Operations whose values are channels last, beside bilinear upsampling; nearest upsampling moves numbers."""
SWEEPS = 3


def chosen(draft: Draft) -> frozenset[int]:
    """Return these values: the better of two choices, from all values channels last, and from all free ones in order."""
    orders = _Orders(draft)
    found = [orders.improved(start) for start in (set[int](), {*orders.groups})]
    best = min(found, key=lambda ordered: orders.time(range(len(draft.program.operations)), ordered))
    return frozenset(value for leader in best for value in orders.groups[leader])


def _on_maps(operation: Operation) -> bool:
    """Return whether an operation's values are channels last."""
    return isinstance(operation, MAPS) or (isinstance(operation, Upsample) and not moves.known(operation))


class _Orders:
    """The groups of values that have one order, by their leaders, and the time that a choice of ordered groups takes."""

    def __init__(self, draft: Draft) -> None:
        self.draft, self.program = draft, draft.program
        self.times: dict[tuple[int, tuple[bool, ...]], float] = {}
        self.known: dict[Any, float] = {}
        values = range(len(self.program.values))
        self.leader = [*values]
        for number, operation in enumerate(self.program.operations):
            if isinstance(operation, ALIKE):
                for source in operation.sources:
                    self.leader[self._led(source)] = self._led(number + 1)
        fixed = {self._led(value) for value in values if self._is_fixed(value)}
        self.groups: dict[int, list[int]] = {}
        for value in values:
            if self._led(value) not in fixed and value not in draft.joined:
                self.groups.setdefault(self._led(value), []).append(value)
        self.touching = {leader: self._touching(held) for leader, held in self.groups.items()}

    def _led(self, value: int) -> int:
        while self.leader[value] != value:
            self.leader[value] = self.leader[self.leader[value]]
            value = self.leader[value]
        return value

    def _is_fixed(self, value: int) -> bool:
        """Return whether a value is channels last, whatever it costs."""
        if not value:
            return True
        held = self.draft.formats.get(value)
        if held is not None and held.kind == steps.BITS:
            return True
        near = (value - 1, *self.draft.readers[value])
        maps = any(_on_maps(self.program.operations[number]) for number in near)
        return maps and len(self.program.values[value].shape) > 2

    def _touching(self, group: list[int]) -> list[int]:
        """Return the operations whose time depends on the order of a group's values."""
        found: set[int] = set()
        todo = [*group]
        while todo:
            value = todo.pop()
            found |= {value - 1, *self.draft.readers[value]}
            todo += [reader + 1 for reader in self.draft.readers[value] if reader + 1 in self.draft.joined]
        return sorted(found)

    def improved(self, ordered: set[int]) -> set[int]:
        """Return the leaders of the ordered groups after changes of single groups that save time."""
        for _ in range(SWEEPS):
            before = {*ordered}
            for leader, touching in self.touching.items():
                other = ordered ^ {leader}
                if self.time(touching, other) < self.time(touching, ordered):
                    ordered = other
            if ordered == before:
                break
        return ordered

    def time(self, numbers: Iterable[int], ordered: set[int]) -> float:
        """Return the time of some operations, in nanoseconds."""
        return sum(self._time(number, ordered) for number in numbers)

    def _time(self, number: int, ordered: set[int]) -> float:
        operation = self.program.operations[number]
        if number + 1 in self.draft.joined or isinstance(operation, Constant) or _on_maps(operation):
            return 0
        origins = [self.draft.joined.origin(source) for source in operation.sources]
        values = (*(first for first, _ in origins), number + 1)
        key = number, tuple(self._led(value) in ordered for value in values)
        if key not in self.times:
            *sources, result = (
                Place(self.program.values[value].shape, in_order=in_order)
                for value, in_order in zip(values, key[1], strict=True)
            )
            given = [self.program.values[source] for source in operation.sources]
            moved = [each for _, each in origins]
            # most networks repeat a block
            like = (
                alike(operation),
                [[*map(alike, each)] for each in moved],
                [(p.shape, p.in_order) for p in (*sources, result)],
            )
            if str(like) not in self.known:
                self.known[str(like)] = time_of(operation, given, sources, moved, result)
            self.times[key] = self.known[str(like)]
        return self.times[key]
