"""Where a layer's output can be coded by the layer itself: what stands between the two, found in a program."""

from __future__ import annotations

from dataclasses import dataclass

from deploy.operations.base import fits_a_byte
from deploy.operations.functions import Function
from deploy.operations.layers import Quantize
from deploy.operations.places import MaxPool
from deploy.program import Program
from models.layers.quantizers.base import Steps


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


def readers(program: Program) -> list[list[int]]:
    """Of each value, the operations that read it."""
    found: list[list[int]] = [[] for _ in program.values]
    for number, operation in enumerate(program.operations):
        for source in operation.sources:
            found[source].append(number)
    return found


def chain(program: Program, number: int, known: list[list[int]]) -> Chain | None:
    """From operation `number` to codes of 8 bits, where nothing else reads what is between."""
    relu, pools, covered = False, [], [number + 1]
    while len(known[number + 1]) == 1:
        number = known[number + 1][0]
        covered.append(number + 1)
        operation = program.operations[number]
        if isinstance(operation, Function) and operation.kind == "relu":
            relu = True
        elif isinstance(operation, MaxPool):
            pools.append((operation, number + 1))
        elif isinstance(operation, Quantize) and isinstance(operation.grid, Steps):
            grid = operation.grid
            return Chain(relu, tuple(pools), grid, tuple(covered)) if fits_a_byte(grid) else None
        else:
            return None
    return None
