"""A plan in the making: the values and steps so far. plan.py, layers.py and kernels.py add to it."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from deploy.executors import plans
from deploy.native import steps
from deploy.native.formats import Format, formats, geometry
from deploy.native.joined import Joined
from deploy.native.laid_out import Later, Planned
from deploy.native.layout import Place
from deploy.native.steps import Widths
from deploy.operations.base import padding_of_windows
from deploy.operations.layers import Convolution, Linear
from deploy.program import Program
from models.layers.quantizers.base import Signs, Steps


class Draft:
    """The values and steps of a plan that is not yet laid out.

    Args:
        widths: of the instruction set that runs it.
    """

    def __init__(self, program: Program, widths: Widths) -> None:
        self.program, self.widths = program, widths
        self.readers = plans.readers(program)
        self.formats = formats(program, widths.whole)
        self.places: dict[int, Place] = {0: Place(program.picture)}
        self.made: list[Planned] = []
        fixed = {value for value, held in self.formats.items() if held.kind == steps.BITS}
        self.joined = Joined(program, self.readers, fixed)
        self.in_order: frozenset[int] = frozenset()
        self.threes: dict[int, int] = {}  # values in the form of source/threes.h, by the value that they copy
        self.constants: list[tuple[int, NDArray[np.float32]]] = []
        self.extra = len(
            program.values
        )  # number of the next value that only the engine has, such as codes before a pool

    def read_by_windows(self, place: Place, operation: Convolution | Linear, shape: tuple[int, ...]) -> None:
        """Widen a value's border as far as a layer's windows reach."""
        if isinstance(operation, Convolution):
            form = geometry(operation)
            above, below, left, right = padding_of_windows(
                place.shape[1:], shape[1:], form.kernel, form.stride, operation.padding, form.dilation
            )
            place.widened(above, left, below, right)

    def new(self, place: Place) -> int:
        """Return the number of a new value that only the engine has."""
        self.places[self.extra] = place
        self.extra += 1
        return self.extra - 1

    def place(self, value: int) -> Place:
        """Return the place of a value; the first call makes it."""
        if value not in self.places:
            held = self.formats.get(value, Format(steps.FLOAT))
            shape = self.program.values[value].shape
            self.places[value] = Place(shape, held.kind, held.planes, held.zero, in_order=value in self.in_order)
        return self.places[value]

    def add(
        self, kind: int, sources: tuple[int, ...], number: int, result: int | None = None, later: Later | None = None,
        **settings: Any,
    ) -> None:  # fmt: skip
        """Add a step for an operation.

        Args:
            result: the value that it gives; None: the operation's.
            later: returns the settings that depend on borders, which other layers' windows may widen until the end.
        """
        result = number + 1 if result is None else result
        for value in (*sources, result):
            self.place(value)
        self.made.append(Planned(kind, sources, result, settings, number, later))

    def channels(self, numbers: NDArray[np.int64]) -> NDArray[np.int32]:
        """Return numbers of channels, padded with zeros because kernels read whole vectors.

        Intermediate sums of bytes may overflow int32; the final sums are right modulo 2^32.
        """
        return np.pad((numbers & 0xFFFFFFFF).astype(np.uint32).view(np.int32), (0, self.widths.most))

    def numbers(self, numbers: NDArray[np.float32] | None) -> NDArray[np.float32] | None:
        """Return numbers of channels, padded like `channels`."""
        return None if numbers is None else np.pad(numbers, (0, self.widths.most))


def coding(grid: Steps | Signs) -> dict[str, Any]:
    """Return the settings of a step that turns numbers into codes."""
    if isinstance(grid, Signs):
        return {"signs": 1, "edge": -1.0 if grid.edge is None else grid.edge}
    return {"signs": 0, "inverse": grid.inverse, "low": grid.low, "high": grid.high}
