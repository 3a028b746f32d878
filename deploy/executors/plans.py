"""Where a layer's output can be coded by the layer itself: what stands between the two, found in a program."""

from __future__ import annotations

from dataclasses import dataclass

from deploy.operations.base import fits_a_byte
from deploy.operations.functions import Function
from deploy.operations.layers import Quantize
from deploy.operations.places import MaxPool
from deploy.program import Program
from models.layers.quantizers.base import Signs, Steps


@dataclass(frozen=True)
class Chain:
    """What follows a layer up to the codes of its output.

    Args:
        relu: whether a ReLU stands there.
        pools: the max-pools, in order, each with the number of its value; they may as well pool codes.
        grid: of the codes.
        covered: the numbers of the values from the layer's own to that in codes, which is the last.
    """

    relu: bool
    pools: tuple[tuple[MaxPool, int], ...]
    grid: Steps
    covered: tuple[int, ...]


@dataclass(frozen=True)
class SignChain:
    """What follows a layer up to the signs of its output; as Chain. Signs grow with numbers: pools may as well pool signs."""

    pools: tuple[tuple[MaxPool, int], ...]
    grid: Signs
    covered: tuple[int, ...]


def readers(program: Program) -> list[list[int]]:
    """Of each value, the operations that read it."""
    found: list[list[int]] = [[] for _ in program.values]
    for number, operation in enumerate(program.operations):
        for source in operation.sources:
            found[source].append(number)
    return found


def chain(program: Program, number: int, known: list[list[int]]) -> Chain | None:
    """From operation `number` to codes of 8 bits, where nothing else reads what is between."""
    found = _followed(program, number, known)
    if found is None or not isinstance(found[2], Steps) or not fits_a_byte(found[2]):
        return None
    relu, pools, grid, covered = found
    return Chain(relu, pools, grid, covered)


def signs(program: Program, number: int, known: list[list[int]]) -> SignChain | None:
    """From operation `number` to signs, where nothing else reads what is between, and no ReLU stands there."""
    found = _followed(program, number, known)
    if found is None or not isinstance(found[2], Signs) or found[0]:
        return None
    return SignChain(*found[1:])  # type: ignore[arg-type]


def _followed(
    program: Program, number: int, known: list[list[int]]
) -> tuple[bool, tuple[tuple[MaxPool, int], ...], Steps | Signs, tuple[int, ...]] | None:
    """Whether there is a ReLU, the pools, the grid, the values."""
    relu, pools, covered = False, [], [number + 1]
    while len(known[number + 1]) == 1:
        number = known[number + 1][0]
        covered.append(number + 1)
        operation = program.operations[number]
        if isinstance(operation, Function) and operation.kind == "relu":
            relu = True
        elif isinstance(operation, MaxPool):
            pools.append((operation, number + 1))
        elif isinstance(operation, Quantize):
            return relu, tuple(pools), operation.grid, tuple(covered)
        else:
            return None
    return None
