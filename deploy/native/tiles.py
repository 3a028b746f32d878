"""Layers on bytes for a matrix unit: windows cut into pieces, and weights in tiles.

A tile holds up to 64 bytes of the windows of 16 places, or the weights of 16 outputs for these bytes; see source/tiles.h.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from deploy.native.layout import Place
from deploy.native.matrices import Geometry

SIDE, BYTES = 16, 64
"""Rows of a tile, and bytes of a row."""
BESIDE = 2
"""Factor by which the products in tiles must be faster, because loading and storing tiles takes time, too."""


@dataclass(frozen=True)
class Cut:
    """A way to cut windows into pieces.

    Args:
        runs: contiguous runs of a window: its rows, or its taps.
        length: bytes of a run.
        size: bytes of a piece.
        joined: pieces in a row of a tile. A single piece may be read in place; several are gathered.
    """

    runs: int
    length: int
    size: int
    joined: int

    @property
    def begins(self) -> list[int]:
        """The starts of a run's pieces. The last piece ends with the run and may overlap the one before."""
        return [min(begin, max(self.length - self.size, 0)) for begin in range(0, self.length, self.size)]

    @property
    def tiles(self) -> int:
        """Tiles of a window."""
        return -(-self.runs * len(self.begins) // self.joined)

    @property
    def width(self) -> int:
        """Bytes of a window in one tile, a multiple of four."""
        return -(-self.joined * self.size // 4) * 4

    def turns(self, blocks: int, columns: int) -> int:
        """Estimate the processor cycles for 16 places: 16 for each product of tiles, and 16 for each piece to gather.

        Args:
            blocks: of 16 outputs.
            columns: of the result; with fewer than 16, a tile continues in the next row and its pieces are gathered.
        """
        brought = self.joined > 1 or columns < SIDE
        return SIDE * (self.tiles * blocks + brought * self.tiles * self.joined)


def ways(weight: tuple[int, ...], geometry: Geometry, source: Place) -> list[Cut]:
    """Return the ways to cut windows: runs into pieces of one size, and short runs also gathered.

    Args:
        weight: shape of the weight, (out, in / groups, rows, columns).
    """
    rows, columns = geometry.kernel
    inputs = weight[1]
    runs, length = (rows, (columns - 1) * source.pitch + inputs) if _whole_rows(geometry) else (rows * columns, inputs)
    pieces = -(-length // BYTES)
    found = [Cut(runs, length, -(-length // pieces // 4) * 4, 1)]
    if runs > 1 and length * 2 <= BYTES:
        found.append(Cut(runs, length, length, min(BYTES // length, runs)))
    return found


def cut(weight: tuple[int, ...], geometry: Geometry, source: Place, result: Place) -> Cut | None:
    """Return the fastest way to cut windows; None if the kernel for fours of bytes is faster: few places or inputs.

    Args:
        weight: shape of the weight, (out, in / groups, rows, columns).
    """
    blocks = -(-weight[0] // geometry.groups // SIDE)
    rows, columns, _ = result.sides
    best = min(ways(weight, geometry, source), key=lambda way: way.turns(blocks, columns))
    by_fours = best.runs * -(-best.length // 4) * blocks * rows * columns / 2  # two products of 16 fours in a cycle
    return best if best.turns(blocks, columns) * -(-rows * columns // SIDE) * BESIDE <= by_fours else None


def _whole_rows(geometry: Geometry) -> bool:
    """Return whether a row of a window is one run; channels that pad each column to fours have weight 0."""
    return geometry.groups == geometry.dilation[1] == 1


def tiles(
    values: NDArray[np.int64], geometry: Geometry, source: Place, way: Cut
) -> tuple[NDArray[np.int8], NDArray[np.int32], int]:
    """Return weights in tiles, and the offsets of pieces.

    Args:
        values: (out, in / groups, rows, columns), bytes.

    Returns:
        weights (flat: groups, blocks of 32 outputs, tiles, 16 outputs, fours, outputs, bytes), offsets (groups, pieces) in bytes,
        outputs of a group in whole 16s.
    """
    groups, (rows, columns) = geometry.groups, geometry.kernel
    each, inputs = len(values) // groups, values.shape[1]
    taps = values.transpose(0, 2, 3, 1)
    first = (np.arange(rows)[:, None] * geometry.dilation[0] * source.line
             + np.arange(columns) * geometry.dilation[1] * source.pitch)  # fmt: skip
    if _whole_rows(geometry):
        spread = np.zeros((*taps.shape[:3], source.pitch), np.int64)
        spread[..., :inputs] = taps
        taps, first = spread.reshape(len(values), rows, -1)[..., : way.length], first[:, :1]
    runs = taps.reshape(len(values), way.runs, way.length)
    count = way.tiles * way.joined
    pieces = np.zeros((len(values), way.runs, len(way.begins), way.size), np.int8)
    for piece, begin in enumerate(way.begins):
        low, high = piece * way.size, min((piece + 1) * way.size, way.length)
        pieces[:, :, piece, low - begin : high - begin] = runs[..., low:high]
    begins = np.resize((first.reshape(-1, 1) + way.begins).reshape(-1), count)  # repeated pieces have weight 0
    offsets = np.arange(groups)[:, None] * inputs + begins
    outputs = -(-each // SIDE) * SIDE
    held = np.zeros((groups, outputs, count, way.size), np.int8)
    flat = pieces.reshape(groups, each, -1, way.size)
    held[:, :each, : flat.shape[2]] = flat
    packed = np.zeros((groups, outputs // SIDE, SIDE, way.tiles, way.width), np.int8)
    packed[..., : way.joined * way.size] = held.reshape(groups, outputs // SIDE, SIDE, way.tiles, -1)
    # (groups, tiles, vectors, fours, outputs, bytes)
    fours = packed.reshape(*packed.shape[:4], -1, 4).transpose(0, 3, 1, 4, 2, 5)
    parts = [fours[group, :, at : at + 2].reshape(-1) for group in range(groups) for at in range(0, outputs // SIDE, 2)]
    return np.concatenate(parts), offsets.astype(np.int32), outputs
