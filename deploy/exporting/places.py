"""Operations that move, cut, repeat or pool numbers, in ONNX.

Pools get explicit padding and ceil_mode 0: runtimes disagree about windows beyond the edge.
"""

from __future__ import annotations

from typing import Any

import numpy as np

from deploy.exporting.graph import Graph
from deploy.operations.base import padding_of_windows
from deploy.operations.places import Concatenate, Pad, Permute, Reshape, Slice, Take, Upsample, nearest
from deploy.operations.pools import AdaptivePool, AveragePool, MaxPool
from deploy.reference.sums import counts
from engine.errors import UserError


def _pads(operation: MaxPool | AveragePool, dilation: tuple[int, int], before: Any, after: Any) -> list[int]:
    """Return the padding in ONNX's order: above, left, below, right."""
    above, below, left, right = padding_of_windows(
        before[1:], after[1:], operation.kernel, operation.stride, operation.padding, dilation
    )
    return [above, left, below, right]


def max_pool(graph: Graph, number: int, operation: MaxPool) -> None:
    """Add a max-pool; it pools codes if codes follow it."""
    x, chain = graph.at[operation.sources[0]], graph.chain(number)
    if chain:
        x = graph.coded(x, chain.grid)[1]
    if operation.sources[0] in graph.ends:
        graph.ends[number + 1] = graph.ends[operation.sources[0]]
    before, after = (graph.program.values[n].shape for n in (operation.sources[0], number + 1))
    pads = _pads(operation, operation.dilation, before, after)
    if any(pad >= operation.kernel[place % 2] for place, pad in enumerate(pads)):  # runtimes refuse such pools
        lowest = graph.tensor(np.finfo(np.float32).min, np.float32)
        x = graph.node("Pad", x, graph.tensor([0, 0, *pads[:2], 0, 0, *pads[2:]], np.int64), lowest, mode="constant")
        pads = [0, 0, 0, 0]
    graph.at[number + 1] = graph.node(
        "MaxPool", x, kernel_shape=[*operation.kernel], strides=[*operation.stride], dilations=[*operation.dilation],
        pads=pads,
    )  # fmt: skip


def average_pool(graph: Graph, number: int, operation: AveragePool) -> None:
    """Add the mean over whole windows, zeros included, and multiply where the count of numbers differs."""
    before, after = (graph.program.values[n].shape for n in (operation.sources[0], number + 1))
    found = graph.node(
        "AveragePool", graph.at[operation.sources[0]], kernel_shape=[*operation.kernel], strides=[*operation.stride],
        pads=_pads(operation, (1, 1), before, after), count_include_pad=1,
    )  # fmt: skip
    whole = operation.kernel[0] * operation.kernel[1]
    count = counts(operation, before[1:], after[1:]).numpy()
    factor = whole / (count if operation.divisor is None else np.full_like(count, operation.divisor))
    if (factor != 1).any():
        found = graph.node("Mul", found, graph.tensor(factor.astype(np.float32)))
    graph.at[number + 1] = found


def adaptive_pool(graph: Graph, number: int, operation: AdaptivePool) -> None:
    """Add a pool if all windows are equal, else means as two matrix products."""
    x, sides = graph.at[operation.sources[0]], graph.program.values[operation.sources[0]].shape[1:]
    if all(side % size == 0 for side, size in zip(sides, operation.size, strict=True)):
        kernel = [side // size for side, size in zip(sides, operation.size, strict=True)]
        kind = {"mean": "AveragePool", "max": "MaxPool"}[operation.kind]
        graph.at[number + 1] = graph.node(kind, x, kernel_shape=kernel, strides=kernel)
        return
    if operation.kind == "max":
        raise UserError(
            f"{operation.name}: ONNX cannot max-pool {sides} rows and columns to {operation.size}",
            "choose an output size that divides the rows and columns",
        )
    rows, columns = (_means(side, size) for side, size in zip(sides, operation.size, strict=True))
    found = graph.node("MatMul", graph.tensor(rows), x)
    graph.at[number + 1] = graph.node("MatMul", found, graph.tensor(np.ascontiguousarray(columns.T)))


def _means(side: int, size: int) -> np.ndarray:
    found = np.zeros((size, side), np.float32)
    for place in range(size):
        start, stop = place * side // size, -(-(place + 1) * side // size)
        found[place, start:stop] = 1 / (stop - start)
    return found


def concatenate(graph: Graph, number: int, operation: Concatenate) -> None:
    parts = [graph.at[source] for source in operation.sources]
    graph.at[number + 1] = graph.node("Concat", *parts, axis=operation.axis + 1)


def cut(graph: Graph, number: int, operation: Slice) -> None:
    told = (operation.start, operation.stop, operation.axis + 1, operation.step)
    graph.at[number + 1] = graph.node(
        "Slice", graph.at[operation.sources[0]], *(graph.tensor([n], np.int64) for n in told)
    )


def take(graph: Graph, number: int, operation: Take) -> None:
    places = graph.tensor(operation.places, np.int64)
    graph.at[number + 1] = graph.node("Gather", graph.at[operation.sources[0]], places, axis=operation.axis + 1)


def pad(graph: Graph, number: int, operation: Pad) -> None:
    above, below, left, right = operation.sides
    front, back = operation.channels
    source = operation.sources[0]
    if operation.kind == "circular":
        wrap(graph, number, operation)
        return
    mode = {"constant": "constant", "reflect": "reflect", "replicate": "edge"}[operation.kind]
    sides = graph.tensor([0, front, above, left, 0, back, below, right], np.int64)
    fill = [graph.tensor(operation.fill, np.float32)] if operation.kind == "constant" else []
    graph.at[number + 1] = graph.node("Pad", graph.at[source], sides, *fill, mode=mode)
    if graph.program.values[source].grid is not None:  # copies of channels are taken from the codes
        grid = graph.program.values[source].grid
        assert grid is not None
        zero = [graph.tensor(-getattr(grid, "low", -128), np.uint8)] if fill else []
        graph.codes[number + 1] = graph.node("Pad", graph.codes[source], sides, *zero, mode=mode)


def wrap(graph: Graph, number: int, operation: Pad) -> None:
    """Join slices, because Pad repeats a picture from opset 19 on only. Copies of numbers do not change their codes."""
    (source,) = operation.sources
    shape, (above, below, left, right) = graph.program.values[source].shape, operation.sides
    for held in (graph.at, graph.codes):
        if source not in held:
            continue
        found = held[source]
        for axis, before, behind in ((2, above, below), (3, left, right)):
            size = shape[axis - 1]
            ahead = [_part(graph, found, axis, size - before, size)] if before else []
            back = [_part(graph, found, axis, 0, behind)] if behind else []
            found = graph.node("Concat", *ahead, found, *back, axis=axis) if ahead or back else found
        held[number + 1] = found


def _part(graph: Graph, value: str, axis: int, start: int, stop: int) -> str:
    return graph.node("Slice", value, *(graph.tensor([n], np.int64) for n in (start, stop, axis)))


def reshape(graph: Graph, number: int, operation: Reshape) -> None:
    shape = graph.tensor([0, *operation.shape], np.int64)  # 0: keep the batch size
    graph.at[number + 1] = graph.node("Reshape", graph.at[operation.sources[0]], shape)


def permute(graph: Graph, number: int, operation: Permute) -> None:
    axes = [0, *(axis + 1 for axis in operation.axes)]
    graph.at[number + 1] = graph.node("Transpose", graph.at[operation.sources[0]], perm=axes)


def upsample(graph: Graph, number: int, operation: Upsample) -> None:
    """Add Resize; other than integer factors of `nearest` become a Gather, because runtimes round indices differently."""
    x, sides = graph.at[operation.sources[0]], graph.program.values[operation.sources[0]].shape[1:]
    factors = [new / old for new, old in zip(operation.size, sides, strict=True)]
    whole = all(factor == int(factor) for factor in factors)
    if operation.kind == "nearest" and not whole:
        for axis, (new, old) in enumerate(zip(operation.size, sides, strict=True), 2):
            x = graph.node("Gather", x, graph.tensor(nearest(new, old), np.int64), axis=axis)
        graph.at[number + 1] = x
        return
    scales = graph.tensor(np.array([1.0, 1.0, *factors], np.float32))
    if operation.kind == "nearest":
        how: dict[str, Any] = {
            "mode": "nearest",
            "nearest_mode": "floor",
            "coordinate_transformation_mode": "asymmetric",
        }
    else:
        corners = "align_corners" if operation.align_corners else "half_pixel"
        how = {"mode": "linear", "coordinate_transformation_mode": corners}
    if whole:
        graph.at[number + 1] = graph.node("Resize", x, "", scales, **how)
        return
    # sizes, because a rounded factor may give a different size
    ends = (graph.tensor([n], np.int64) for n in (0, 2))
    sizes = graph.node(
        "Concat", graph.node("Slice", graph.node("Shape", x), *ends), graph.tensor(operation.size, np.int64), axis=0
    )
    graph.at[number + 1] = graph.node("Resize", x, "", "", sizes, **how)
