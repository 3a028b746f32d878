"""Find layers that can quantize their own output: a layer, the operations between, and Quantize."""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np

from deploy.operations.base import Operation, fits_a_byte
from deploy.operations.functions import Function
from deploy.operations.layers import Quantize
from deploy.operations.pools import MaxPool
from deploy.program import Program
from models.layers.quantizers.base import Signs, Steps


@dataclass(frozen=True)
class Chain:
    """The operations from a layer to the codes of its output.

    Args:
        low, high: the lowest and the highest code; a ReLU or a clamp narrows the grid's range.
        pools: the max-pools, in order, each with the number of its value; pooling codes gives the same result.
        grid: of the codes.
        covered: the numbers of the values from the layer's own to the codes.
    """

    low: int
    high: int
    pools: tuple[tuple[MaxPool, int], ...]
    grid: Steps
    covered: tuple[int, ...]


@dataclass(frozen=True)
class SignChain:
    """The operations from a layer to the signs of its output; see Chain. Pooling signs gives the same result."""

    pools: tuple[tuple[MaxPool, int], ...]
    grid: Signs
    covered: tuple[int, ...]


def readers(program: Program) -> list[list[int]]:
    """Return, for each value, the operations that read it."""
    found: list[list[int]] = [[] for _ in program.values]
    for number, operation in enumerate(program.operations):
        for source in operation.sources:
            found[source].append(number)
    return found


def chain(program: Program, number: int, known: list[list[int]]) -> Chain | None:
    """Return the chain from operation `number` to codes of 8 bits; None if another operation reads a value between."""
    followed = _followed(program, number, known)
    if followed is None:
        return None
    ends, pools, grid, covered = followed
    if not isinstance(grid, Steps) or not fits_a_byte(grid):
        return None
    found = (grid.low, grid.high)
    for least, most in ends:
        found = limited(grid, found, least, most)
    return Chain(*found, pools, grid, covered)


def ends_of(operation: Operation) -> tuple[float, float] | None:
    """Return the bounds of a ReLU or clamp; None for any other operation."""
    if not isinstance(operation, Function) or operation.kind not in ("relu", "clamp"):
        return None
    return (0.0, math.inf) if operation.kind == "relu" else (operation.settings[0], operation.settings[1])


def limited(grid: Steps, ends: tuple[int, int], least: float, most: float) -> tuple[int, int]:
    """Clamp a range of codes, `ends`, to the codes of the numbers `least` and `most`."""
    low, high = (min(max(end, _code(grid, least)), _code(grid, most)) for end in ends)
    return low, high


def _code(grid: Steps, number: float) -> int:
    """Return a number's code, rounded as in deploy.reference."""
    with np.errstate(over="ignore"):
        code = np.rint(np.float32(number) * np.float32(grid.inverse))
    return int(min(max(code, grid.low), grid.high))


def signs(program: Program, number: int, known: list[list[int]]) -> SignChain | None:
    """Return the chain from operation `number` to signs with only max-pools between; None without one."""
    found = _followed(program, number, known)
    if found is None:
        return None
    ends, pools, grid, covered = found
    return None if ends or not isinstance(grid, Signs) else SignChain(pools, grid, covered)


def _followed(
    program: Program, number: int, known: list[list[int]]
) -> tuple[list[tuple[float, float]], tuple[tuple[MaxPool, int], ...], Steps | Signs, tuple[int, ...]] | None:
    """Return the bounds of the activations, the pools, the grid and the covered values."""
    ends: list[tuple[float, float]] = []
    pools: list[tuple[MaxPool, int]] = []
    covered = [number + 1]
    while len(known[number + 1]) == 1:
        number = known[number + 1][0]
        covered.append(number + 1)
        operation = program.operations[number]
        if (found := ends_of(operation)) is not None:
            if any(any(pool.padding) and pool.dilation != (1, 1) for pool, _ in pools):
                return None  # a window of padding alone gives -inf, which has no code before the activation raises it
            ends.append(found)
        elif isinstance(operation, MaxPool):
            pools.append((operation, number + 1))
        elif isinstance(operation, Quantize):
            return ends, tuple(pools), operation.grid, tuple(covered)
        else:
            return None
    return None
