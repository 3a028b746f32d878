"""The memory layout of values: rows, columns, channels and borders, and their places in the arena."""

from __future__ import annotations

from dataclasses import dataclass, field
from math import prod

import numpy as np
from numpy.typing import NDArray

from deploy.native import steps
from deploy.operations.base import Shape
from engine.system.compiled import Unavailable

ALIGNED = 64
SLACK = 64
"""Bytes after each value: a kernel that reads vectors of 64 bytes may read beyond the last channel."""
MOST = 2**31 - 1
"""Limit of a value in bytes: offsets within it have 32 bits."""


@dataclass
class Place:
    """The storage of a value in the engine: channels are contiguous, whatever the program's order.

    In a shape (..., H, W) of three or more axes, all axes before the last two are channels, or, in order, all axes before
    the last one are rows of one column. (N, C) is N rows of one column; (C,) is one place.

    Args:
        shape: in the program.
        kind: FLOAT, BYTE, SHORT, BITS or WHOLE.
        planes: for BITS.
        zero: the number in the border, and the byte of the code 0.
        in_threes: for BITS: whether words are in the form of source/threes.h.
        in_order: whether the numbers lie in the program's order, the last axis contiguous; see orders.py.
        border: above, left, below, right, as far as windows read.
        at: bytes from the start of the arena.
    """

    shape: Shape
    kind: int = steps.FLOAT
    planes: int = 1
    zero: int = 0
    in_threes: bool = False
    in_order: bool = False
    border: tuple[int, int, int, int] = (0, 0, 0, 0)
    at: int = field(default=-1, compare=False)

    @property
    def sides(self) -> tuple[int, int, int]:
        """Rows, columns, channels."""
        if len(self.shape) >= 3 and not self.in_order:
            return self.shape[-2], self.shape[-1], prod(self.shape[:-2])
        return (prod(self.shape[:-1]), 1, self.shape[-1]) if len(self.shape) >= 2 else (1, 1, prod(self.shape))

    def side(self, axis: int) -> int:
        """Return which side an axis of the shape belongs to: 0 rows, 1 columns, 2 channels."""
        behind = len(self.shape) - 1 - axis
        if len(self.shape) >= 3 and not self.in_order:
            return 1 - behind if behind < 2 else 2
        return 0 if behind else 2

    @property
    def pitch(self) -> int:
        """Numbers (for BITS: words) from one column to the next. Codes are padded to fours, except fewer than 4 bytes."""
        channels = self.sides[2]
        if self.kind == steps.BITS:
            return steps.words(channels) * self.planes
        close = self.kind in (steps.FLOAT, steps.WHOLE) or (self.kind == steps.BYTE and channels < 4)
        return channels if close else -(-channels // 4) * 4

    @property
    def line(self) -> int:
        """Numbers from one row to the next."""
        return (self.border[1] + self.sides[1] + self.border[3]) * self.pitch

    @property
    def size(self) -> int:
        """Bytes of the value, borders included."""
        return (self.border[0] + self.sides[0] + self.border[2]) * self.line * steps.SIZES[self.kind]

    def widened(self, *border: int) -> None:
        """Widen the border to at least this width on each side."""
        self.border = tuple(map(max, self.border, border))  # type: ignore[assignment]

    def told(self) -> steps.Value:
        rows, columns, channels = self.sides
        return steps.Value(self.at, self.kind, rows, columns, channels, self.pitch, *self.border, self.zero)

    def order(self) -> NDArray[np.int64]:
        """Return the position of each number from the start of the value, in the value's shape."""
        rows, columns, channels = self.sides
        first = self.border[0] * self.line + self.border[1] * self.pitch
        row, column, channel = (np.arange(n, dtype=np.int64) for n in (rows, columns, channels))
        lies = first + row[:, None, None] * self.line + column[None, :, None] * self.pitch + channel
        if len(self.shape) >= 3 and not self.in_order:
            lies = np.moveaxis(lies, 2, 0)
        return np.ascontiguousarray(lies).reshape(self.shape)


def arranged(places: list[Place], begin: list[int], end: list[int]) -> int:
    """Give each value its place in one arena; values that are never needed at the same time may overlap.

    Args:
        begin, end: for each value, the first and the last step that needs it.

    Returns:
        the arena's bytes.

    Raises:
        Unavailable: if a value with its border is larger than 2^31 - 1 bytes.
    """
    if (size := max(place.size for place in places)) > MOST:
        raise Unavailable(f"a value takes {size:,} bytes with its border")
    placed: list[int] = []
    total = 0
    for number in sorted(range(len(places)), key=lambda n: -places[n].size):
        size = places[number].size + SLACK
        taken = sorted(
            (places[other].at, places[other].at + places[other].size + SLACK)
            for other in placed
            if begin[other] <= end[number] and begin[number] <= end[other]
        )
        at = 0
        for low, high in taken:
            if at + size <= low:
                break
            at = max(at, -(-high // ALIGNED) * ALIGNED)
        places[number].at = at
        placed.append(number)
        total = max(total, at + size)
    return -(-total // ALIGNED) * ALIGNED
