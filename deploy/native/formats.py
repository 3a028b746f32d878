"""Choose the storage format of values in codes, and with it the kernels of the layers that read them."""

from __future__ import annotations

from dataclasses import dataclass

from deploy.executors import plans
from deploy.native import steps
from deploy.native.bits import only_signs
from deploy.native.matrices import Geometry, depth, fit_bytes, halves
from deploy.operations.base import Codes, Value, fits_a_byte
from deploy.operations.layers import Convolution, Linear
from deploy.operations.places import Pad
from deploy.program import Program
from models.layers.quantizers.base import Signs, Steps

WORTH = 8
"""The number of sums that int16 must hold for byte kernels to be faster than int16 kernels."""
MOST_TAPS = 1024
FEWEST_BITS = 32
"""The number of channels from which packing bits into words is worth it."""


def geometry(operation: Convolution | Linear) -> Geometry:
    if isinstance(operation, Linear):
        return Geometry()
    above, _, left, _ = operation.padding
    height, width = operation.matrix.weight.shape[2:]
    return Geometry((height, width), operation.stride, (above, left), operation.dilation, operation.groups)


def is_depthwise(operation: Convolution | Linear) -> bool:
    """Return whether each channel has exactly one filter."""
    shape = operation.matrix.weight.shape
    return isinstance(operation, Convolution) and shape[1] == 1 and operation.groups == shape[0] > 1


def largest_byte(grid: Steps | Signs | None) -> int:
    return grid.high - grid.low if isinstance(grid, Steps) else 2


@dataclass(frozen=True)
class Format:
    """The storage format of a value in codes.

    Args:
        kind: BYTE, SHORT or BITS.
        planes: for BITS: 2 if codes may be 0, else 1.
        zero: the byte of the code 0.
    """

    kind: int
    planes: int = 1
    zero: int = 0


def by_signs(operation: Convolution | Linear, given: Value) -> bool:
    """Return whether a layer can be computed by counting bits."""
    weight, form = operation.matrix.weight, geometry(operation)
    if not isinstance(given.grid, Signs) or not isinstance(weight, Codes):
        return False
    small = form.kernel[0] * form.kernel[1] <= MOST_TAPS and form.groups == 1 and given.shape[0] >= FEWEST_BITS
    one_place = isinstance(operation, Convolution) or len(given.shape) == 1
    return small and one_place and only_signs(weight) > 0


def formats(program: Program, whole: bool) -> dict[int, Format]:
    """Return the format of each value in codes. A padded value has the format of its source.

    Args:
        whole: whether the kernels add byte products in 32 bits.
    """
    readers = plans.readers(program)
    found: dict[int, Format] = {}
    for number, value in enumerate(program.values):
        if value.grid is None or number in found:
            continue
        alike, todo = [number], [number]
        layers: list[Convolution | Linear] = []
        plain = False  # whether an operation other than an integer layer, such as a padding, reads the codes
        while todo:
            for reader in readers[todo.pop()]:
                operation = program.operations[reader]
                if isinstance(operation, Pad):
                    alike.append(reader + 1)
                    todo.append(reader + 1)
                if isinstance(operation, (Convolution, Linear)) and operation.matrix.whole(value):
                    layers.append(operation)
                else:
                    plain = True
        chosen = _format(value, layers, plain, whole)
        found.update(dict.fromkeys(alike, chosen))
    return found


def _format(value: Value, layers: list[Convolution | Linear], plain: bool, whole: bool) -> Format:
    grid = value.grid
    assert grid is not None
    if not plain and layers and all(by_signs(layer, value) for layer in layers):
        assert isinstance(grid, Signs)
        return Format(steps.BITS, 1 if grid.edge is None else 2)
    if not fits_a_byte(grid):
        return Format(steps.SHORT)
    for layer in layers:
        weight = layer.matrix.weight
        assert isinstance(weight, Codes)
        if is_depthwise(layer):
            continue
        if not (fit_bytes(weight) or halves(weight) if whole else depth(weight, largest_byte(grid)) >= WORTH):
            return Format(steps.SHORT)
    return Format(steps.BYTE, zero=-grid.low if isinstance(grid, Steps) else 1)
