"""Layers in ONNX: int8 weights and int32 biases on the grid of the sums, each with a DequantizeLinear; codes as uint8.

Engines recognise an integer layer by its pattern: DequantizeLinear on the input and on the weight, the layer,
QuantizeLinear. A ReLU or clamp before codes therefore becomes a limit of the codes, and a max-pool between layer and
codes pools codes.
"""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from deploy.executors import plans
from deploy.executors.numbers import folded
from deploy.exporting.graph import Graph, NotInFp32
from deploy.narrow import Narrow, narrow
from deploy.operations.base import Codes, fits_a_byte
from deploy.operations.functions import Function
from deploy.operations.layers import Affine, Convolution, Decode, Linear, Quantize, Transposed
from deploy.operations.pools import MaxPool
from engine.errors import UserError
from models.layers.quantizers.base import Signs, Steps

HALF = Steps(1.0, 1.0, -128, 127)
"""Grid of integers of which only the sign is used: beyond 8 bits they saturate and keep their sign."""


def quantize(graph: Graph, number: int, operation: Quantize) -> None:
    """Add the codes of a value."""
    source, grid = operation.sources[0], operation.grid
    x = graph.at[source]
    if isinstance(grid, Steps):
        if not fits_a_byte(grid):
            raise UserError(
                f"{operation.name}: codes from {grid.low} to {grid.high} do not fit 8 bits with 0 among them",
                "quantize the network to 8 bits or fewer, with 0 among the codes",
            )
        graph.codes[number + 1], graph.at[number + 1] = graph.coded(x, grid, graph.ends.get(source))
        return
    one, minus = graph.tensor(1.0, np.float32), graph.tensor(-1.0, np.float32)
    if grid.edge is None:
        signs = graph.node("Where", graph.node("GreaterOrEqual", x, graph.tensor(0.0, np.float32)), one, minus)
    else:
        low = graph.node("Where", graph.node("Less", x, graph.tensor(-grid.edge, np.float32)), minus,
                         graph.tensor(0.0, np.float32))  # fmt: skip
        signs = graph.node("Where", graph.node("Greater", x, graph.tensor(grid.edge, np.float32)), one, low)
    graph.codes[number + 1], graph.at[number + 1] = graph.coded(signs, HALF)


def decode(graph: Graph, number: int, operation: Decode) -> None:
    """Name the output of DequantizeLinear, multiplied where its step differs from the grid's scale."""
    source = operation.sources[0]
    grid, found = graph.program.values[source].grid, graph.at[source]
    assert isinstance(grid, Steps)
    ratio = np.float32(grid.scale) / np.float32(graph.unit(grid))
    graph.at[number + 1] = found if ratio == 1 else graph.node("Mul", found, graph.tensor(ratio, np.float32))


def layer(graph: Graph, number: int, operation: Convolution | Linear) -> None:
    """Add a convolution or linear layer, on codes or numbers."""
    given = graph.program.values[operation.sources[0]]
    groups = operation.groups if isinstance(operation, Convolution) else 1
    small = narrow(operation.matrix, groups, given)
    source = operation.sources[0]
    if small is not None:
        x = _picked(graph, source, small)
        parts = _integer(graph, small, graph.unit(given.grid))
        found = _applied(graph, operation, x, *parts)
        if small.shift is not None:
            found = graph.node("Add", found, graph.tensor(_behind(small.shift, operation)))
    else:
        found = _float(graph, operation, graph.at[source], graph.unit(given.grid) if given.grid is not None else 1.0)
    plain = operation.matrix.scale is None and operation.matrix.shift is None  # the output is integer
    if small is not None and plain and _signs_alone(graph, number + 1):
        found = graph.coded(found, HALF)[1]
    graph.at[number + 1] = found


def _picked(graph: Graph, source: int, small: Narrow) -> str:
    """Return the input with its channels in the weight's order; channels are copied as codes."""
    if small.channels is None:
        return graph.at[source]
    grid = graph.program.values[source].grid
    axis = 1 if small.weight.ndim == 4 else len(graph.program.values[source].shape)
    codes = graph.node("Gather", graph.codes[source], graph.tensor(small.channels, np.int64), axis=axis)
    grid = grid if isinstance(grid, Steps) else HALF
    return graph.node(
        "DequantizeLinear", codes, graph.tensor(1 / grid.inverse, np.float32), graph.tensor(-grid.low, np.uint8)
    )


def _integer(graph: Graph, small: Narrow, unit: float) -> tuple[str, str]:
    """Add weight and bias, each with a DequantizeLinear."""
    step = (small.scale / np.float32(unit)).astype(np.float32)
    if (step[small.scale >= np.finfo(np.float32).tiny] == 0).any():  # smaller scales are those of dead filters
        raise NotInFp32("a scale that is 0 in fp32, divided by the step of the input")
    zeros = graph.tensor(np.zeros(len(step), np.int8))
    weight = graph.node("DequantizeLinear", graph.tensor(small.weight), graph.tensor(step), zeros, axis=0)
    # engines add integers only if the bias's scale is the fp32 product of the input's and the weight's scale
    bias = graph.node("DequantizeLinear", graph.tensor(small.bias), graph.tensor(step * np.float32(unit)), axis=0)
    return weight, bias


def _applied(graph: Graph, operation: Convolution | Linear, x: str, weight: str, bias: str) -> str:
    if isinstance(operation, Convolution):
        above, below, left, right = operation.padding
        return graph.node(
            "Conv", x, weight, bias, strides=[*operation.stride], pads=[above, left, below, right],
            dilations=[*operation.dilation], group=operation.groups,
        )  # fmt: skip
    if len(graph.program.values[operation.sources[0]].shape) == 1:
        return graph.node("Gemm", x, weight, bias, transB=1)
    return graph.node("Add", graph.node("MatMul", x, graph.node("Transpose", weight, perm=[1, 0])), bias)


def _float(graph: Graph, operation: Convolution | Linear, x: str, unit: float) -> str:
    """Add a layer whose sums are not integers; its weight is stored as int8 where possible."""
    matrix = operation.matrix
    values = matrix.weight.values if isinstance(matrix.weight, Codes) else None
    plain = values is not None and values.min() >= -128 and values.max() <= 127 and matrix.scale is not None
    if plain and matrix.scale is not None and (matrix.scale > 0).all() and matrix.bias is None and unit == 1.0:
        assert values is not None
        zeros = graph.tensor(np.zeros(len(values), np.int8))
        weight = graph.node(
            "DequantizeLinear", graph.tensor(values.astype(np.int8)), graph.tensor(matrix.scale), zeros, axis=0
        )
        shift = np.zeros(len(values), np.float32) if matrix.shift is None else matrix.shift
        return _applied(graph, operation, x, weight, graph.tensor(shift))
    whole, shift = (part.numpy() for part in folded(matrix))
    return _applied(
        graph, operation, x, graph.tensor((whole / np.float32(unit)).astype(np.float32)), graph.tensor(shift)
    )


def _behind(part: NDArray[np.float32], operation: Convolution | Linear) -> NDArray[np.float32]:
    return part.reshape(1, -1, 1, 1) if isinstance(operation, Convolution) else part


def _signs_alone(graph: Graph, value: int) -> bool:
    """Return whether the program uses only the sign of a value."""
    found = []
    for reader in graph.readers[value]:
        operation: Any = graph.program.operations[reader]
        turns = (
            isinstance(operation, Affine)
            and operation.shift is None
            and operation.multiplier is not None
            and bool((np.abs(operation.multiplier) == 1).all())
        )
        if isinstance(operation, Quantize):
            found.append(operation.grid == Signs())
        else:
            found.append((isinstance(operation, MaxPool) or turns) and _signs_alone(graph, reader + 1))
    return bool(found) and all(found)


def transposed(graph: Graph, number: int, operation: Transposed) -> None:
    rows, columns = operation.padding
    graph.at[number + 1] = graph.node(
        "ConvTranspose", graph.at[operation.sources[0]], graph.tensor(operation.weight), graph.tensor(operation.shift),
        strides=[*operation.stride], pads=[rows, columns, rows, columns], output_padding=[*operation.more],
        dilations=[*operation.dilation], group=operation.groups,
    )  # fmt: skip


def affine(graph: Graph, number: int, operation: Affine) -> None:
    x = graph.at[operation.sources[0]]
    before = (1,) * (operation.axis + 1)  # some engines accept only tensors with as many axes as the value
    behind = (1,) * (len(graph.program.values[number + 1].shape) - operation.axis - 1)
    for kind, part in (("Mul", operation.multiplier), ("Add", operation.shift)):
        if part is not None:
            x = graph.node(kind, x, graph.tensor(part.reshape(*before, -1, *behind)))
    graph.at[number + 1] = x


def left_to_codes(graph: Graph, number: int, operation: Function, least: float, most: float) -> bool:
    """Leave an activation to the codes that follow: limit their range to its bounds; return False if none follow."""
    chain, source = graph.chain(number), operation.sources[0]
    if chain is None:
        return False
    whole = (chain.grid.low, chain.grid.high)
    graph.ends[number + 1] = plans.limited(chain.grid, graph.ends.get(source, whole), least, most)
    graph.at[number + 1] = graph.at[source]
    return True
