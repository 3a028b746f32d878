"""The axis of a value that holds the pictures, and how it moves in calls that only move numbers."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from math import prod

from models.graph.calls import BATCH

Sizes = tuple[int, ...]


@dataclass(frozen=True)
class BatchAxis:
    """The axis of the pictures in a value of shape (*before, outer * B * inner, *after) for B pictures.

    `x.permute(2, 0, 3, 1)` moves the axis. `x.reshape(B * heads, ...)` lays it together with another one: its inner factor.
    The *batch-first form* of the value is the same numbers with B apart and in front: (B, *before, outer, inner, *after),
    without factors of 1.
    """

    before: Sizes
    outer: int
    inner: int
    after: Sizes

    @classmethod
    def first(cls, sizes: Sequence[int]) -> BatchAxis:
        """Return that of a value of shape (B, *sizes)."""
        return cls((), 1, 1, tuple(sizes))

    @property
    def is_first(self) -> bool:
        """Whether the value is in its batch-first form."""
        return not self.before and self.outer == self.inner == 1

    @property
    def place(self) -> int:
        return len(self.before)

    @property
    def rank(self) -> int:
        return len(self.before) + 1 + len(self.after)

    @property
    def apart(self) -> Sizes:
        """The sizes behind B in the batch-first form."""
        return (*self.before, *self._factors, *self.after)

    @property
    def _factors(self) -> Sizes:
        return tuple(n for n in (self.outer, self.inner) if n > 1)

    def axis(self, dim: int) -> int:
        """Return the axis of the batch-first form for another axis than that of the pictures.

        Raises:
            ValueError: for the axis of the pictures.
        """
        dim %= self.rank
        if dim == self.place:
            raise ValueError("it works across pictures")
        return dim + 1 if dim < self.place else dim + len(self._factors)

    def is_beside(self, other: BatchAxis) -> bool:
        """Return whether two values have their pictures in the same axis of as many, in the same order."""
        mine, its = ((a.rank, a.place, a.outer, a.inner) for a in (self, other))
        return mine == its

    def without(self, dim: int) -> BatchAxis:
        """Return that of the value without another axis."""
        before, after = list(self.before), list(self.after)
        if dim < self.place:
            del before[dim]
        else:
            del after[dim - self.place - 1]
        return BatchAxis(tuple(before), self.outer, self.inner, tuple(after))

    def resized(self, shape: Sequence[int | None], place: int | None = None) -> BatchAxis:
        """Return that of a value with other axes beside that of the pictures.

        Args:
            shape: the value's shape, with None for the axis of the pictures.
            place: of that axis; None: as here.

        Raises:
            ValueError: if another axis than that one depends on the number of pictures, too.
        """
        place = self.place if place is None else place
        return BatchAxis(_known(shape[:place]), self.outer, self.inner, _known(shape[place + 1 :]))

    def reshaped(self, shape: Sequence[int | None]) -> BatchAxis:
        """Return that of the value in another shape, with its numbers in the same order.

        Args:
            shape: with None for the axis that holds the pictures.

        Raises:
            ValueError: if the shape has no such axis, or cuts the pictures apart.
        """
        if list(shape).count(None) != 1:
            raise ValueError("its shape has not one axis for the pictures")
        place = list(shape).index(None)
        before, after = _known(shape[:place]), _known(shape[place + 1 :])
        outer, inner = prod(self.before) * self.outer, prod(self.after) * self.inner
        if not (prod(before) and prod(after)) or outer % prod(before) or inner % prod(after):
            raise ValueError("its shape cuts the pictures apart")
        return BatchAxis(before, outer // prod(before), inner // prod(after), after)

    def permuted(self, axes: Sequence[int]) -> tuple[BatchAxis, list[int]]:
        """Return that of the value with its axes in another order, and the order of the axes of the batch-first form.

        Args:
            axes: the value's axes in their new order, as for `Tensor.permute`.
        """
        axes = [axis % self.rank for axis in axes]
        sizes: list[int | None] = [*self.before, None, *self.after]
        place = axes.index(self.place)
        factors = range(1 + self.place, 1 + self.place + len(self._factors))
        each = [[*factors] if axis == self.place else [self.axis(axis)] for axis in axes]
        return self.resized([sizes[axis] for axis in axes], place), [0, *(n for part in each for n in part)]

    def fits(self, sizes: Sequence[int] | None) -> bool:
        """Return whether the value has these sizes for calls.BATCH pictures; None: they are not known."""
        return sizes is None or tuple(sizes) == (*self.before, self.outer * BATCH * self.inner, *self.after)


def _known(sizes: Sequence[int | None]) -> Sizes:
    found = tuple(n for n in sizes if n is not None)
    if len(found) < len(sizes):
        raise ValueError("two axes depend on the number of pictures")
    return found
