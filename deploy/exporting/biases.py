"""rounded(program): round biases to whole steps of the sums, as engines need them to compute a layer on integers.

An addition between a layer and its codes would make these engines compute the layer in fp32 (ONNX Runtime 1.32, NIN with AVX512
VNNI: 3.9 to 4.6 times as long).
"""

from __future__ import annotations

from dataclasses import replace
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from deploy.executors import plans
from deploy.operations.base import LARGEST_BIAS, Codes, Matrix, Numbers, Operation
from deploy.operations.layers import Convolution, Linear
from deploy.program import Program

LARGEST_FINE = 63
"""Largest |weight| after scaling up. AVX2 adds two products of bytes in 16 bits: 2 * 63 * 255 fits, and even 64 would."""
COARSE = 8
"""A row's grid is coarse if its scale exceeds the layer's median scale by this factor."""


class Rounded(NamedTuple):
    """A program whose biases are whole steps of the sums, in the layers that engines compute on integers.

    Args:
        layers: the names of these layers.
        farthest: how far a bias moved, as a share of the step between the codes that its layer's output becomes.
    """

    program: Program
    layers: list[str]
    farthest: float


def rounded(program: Program, keep: bool = False) -> Rounded:
    """Return a program with rounded biases.

    Args:
        keep: whether the biases stay as they are.
    """
    if keep:
        return Rounded(program, [], 0.0)
    readers, operations, moved = plans.readers(program), [*program.operations], {}
    for number, operation in enumerate(program.operations):
        if _rounds(program, number, operation) and (chain := plans.chain(program, number, readers)):
            assert isinstance(operation, (Convolution, Linear))
            matrix = on_grid(operation.matrix)
            operations[number] = replace(operation, matrix=matrix)
            moved[operation.name] = float(
                np.abs(_biases(operation.matrix) - _biases(matrix)).max() * chain.grid.inverse
            )
    made = Program(tuple(operations), program.picture, program.mean, program.std)
    return Rounded(made, [*moved], max(moved.values(), default=0.0))


def _rounds(program: Program, number: int, operation: Operation) -> bool:
    if not isinstance(operation, (Convolution, Linear)):
        return False
    matrix = operation.matrix
    return matrix.shift is not None and matrix.scale is not None and matrix.whole(program.values[operation.sources[0]])


def on_grid(matrix: Matrix) -> Matrix:
    """Return a matrix with its bias on the grid of the sums: scale of the input times scale of the weight.

    Codes of few bits are multiplied by a power of two first: the grid of their sums is too coarse for the bias. In rows with
    a far coarser grid than others, the rounding error is added in fp32.
    """
    assert matrix.scale is not None
    assert isinstance(matrix.weight, Codes)
    bias = _biases(matrix)
    weight, scale = _finer(matrix.weight, matrix.scale)
    with np.errstate(divide="ignore", invalid="ignore", over="ignore"):
        steps = bias / scale.astype(np.float64)
    large = ~(np.abs(steps) <= LARGEST_BIAS)  # also true for a scale of 0; these biases are added after the scale
    whole = np.rint(np.where(large, 0, steps)).astype(np.int32)
    rest = bias - whole * scale.astype(np.float64)
    beside = large | (_coarse(scale) & (rest != 0))
    shift = np.where(beside, rest, 0).astype(np.float32) if beside.any() else None
    return Matrix(weight, scale, whole if whole.any() else None, shift)


def _biases(matrix: Matrix) -> NDArray[np.float64]:
    """Return the biases of a matrix with a scale as numbers, behind the scale, (out,)."""
    assert matrix.scale is not None
    found = np.zeros(len(matrix.scale))
    found = found if matrix.bias is None else found + matrix.bias * matrix.scale.astype(np.float64)
    return found if matrix.shift is None else found + matrix.shift


def _coarse(scale: Numbers) -> NDArray[np.bool_]:
    """Return which rows have a grid far coarser than the others, (out,).

    Their inputs hardly vary, and a batch norm enlarged them. A bias rounded to such a grid is off by more than
    the row's output varies.
    """
    size = np.abs(scale)
    return size > COARSE * np.median(size[size > 0]) if size.any() else np.zeros(size.shape, bool)


def _finer(weight: Codes, scale: Numbers) -> tuple[Codes, Numbers]:
    largest = max(1, int(np.abs(weight.values).max(initial=1)))
    factor = 1
    smallest = np.abs(scale[scale != 0]).min(initial=1)
    while 2 * factor * largest <= LARGEST_FINE and smallest / factor > np.finfo(np.float32).tiny * 2:
        factor *= 2
    finer = Codes(weight.values * np.int16(factor), weight.levels, weight.step * factor, weight.low * np.int32(factor))
    return finer, scale / np.float32(factor)
