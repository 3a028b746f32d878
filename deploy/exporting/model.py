"""exported(program): export a program as an ONNX model."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import onnx

from deploy.exporting import layers, numbers, places
from deploy.exporting.graph import Graph, NotInFp32
from deploy.operations import functions as of_numbers, layers as of_layers, places as of_places, pools as of_pools
from deploy.program import Program
from engine.errors import UserError

RULES: dict[type, Callable[[Graph, int, Any], None]] = {
    of_layers.Quantize: layers.quantize,
    of_layers.Decode: layers.decode,
    of_layers.Convolution: layers.layer,
    of_layers.Linear: layers.layer,
    of_layers.Transposed: layers.transposed,
    of_layers.Affine: layers.affine,
    of_numbers.Function: numbers.function,
    of_numbers.Slopes: numbers.slopes,
    of_numbers.Combine: numbers.combine,
    of_numbers.Product: numbers.product,
    of_numbers.Constant: numbers.constant,
    of_numbers.Reduce: numbers.reduce,
    of_numbers.Standardize: numbers.standardize,
    of_numbers.Softmax: numbers.softmax,
    of_pools.MaxPool: places.max_pool,
    of_pools.AveragePool: places.average_pool,
    of_pools.AdaptivePool: places.adaptive_pool,
    of_places.Concatenate: places.concatenate,
    of_places.Slice: places.cut,
    of_places.Take: places.take,
    of_places.Pad: places.pad,
    of_places.Reshape: places.reshape,
    of_places.Permute: places.permute,
    of_places.Upsample: places.upsample,
}
"""By operation, the function that adds its nodes."""


def exported(program: Program, **meta: str) -> onnx.ModelProto:
    """Return the ONNX model of a program, checked by onnx.checker.

    Its input `picture` is normalised fp32, (pictures, channels, rows, columns); its output is `answer`.

    Args:
        meta: metadata to add to mean and std.

    Raises:
        UserError: exit 2, naming the layer, for an operation that ONNX does not have, and for steps of codes so large or
            small that fp32 cannot hold the numbers that ONNX asks for.
    """
    graph = Graph(program)
    for number, operation in enumerate(program.operations):
        try:
            with np.errstate(over="ignore", invalid="ignore"):  # Graph.tensor refuses the results
                RULES[type(operation)](graph, number, operation)
        except NotInFp32 as fault:
            raise UserError(
                f"{operation.name}: {fault}", "train or calibrate this layer again: ONNX models hold fp32 numbers"
            ) from fault
    mean, std = (" ".join(map(str, each)) for each in (program.mean, program.std))
    return graph.model({"mean": mean, "std": std, **meta})
