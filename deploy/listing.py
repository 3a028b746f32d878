"""List a packed network's operations, shapes, bits and bytes, as text and for --json."""

from __future__ import annotations

from math import prod
from typing import Any

import numpy as np

from deploy import codes
from deploy.executors.base import layers
from deploy.operations.base import Codes, Matrix, Operation
from deploy.operations.functions import Function
from deploy.operations.layers import Quantize
from deploy.packed import Packed
from engine.system import terminal
from engine.tasks import score as scores
from models.layers.quantizers.base import Steps

HEADER = ["operation", "name", "reads", "shape", "weights", "bytes"]


def listing(held: Packed) -> str:
    """Return a table with a line for each operation, and a summary."""
    rows = [HEADER]
    for number, operation in enumerate(held.program.operations):
        shape = "x".join(map(str, held.program.values[number + 1].shape))
        reads = ",".join(map(str, operation.sources))
        rows.append([_kind(operation), operation.name, reads, shape, _weights(operation), f"{stored(operation):,}"])
    table = terminal.columns([[str(number), *row] for number, row in enumerate(rows)], left=3)
    made, found = held.made, summary(held)
    score = scores.of(made.dataset.task)
    judged = f", {score.name} {score.shown(made.metrics.accuracy)} before it was packed" if made.metrics.judged else ""
    return "\n".join([
        *map(str.rstrip, table),
        "",
        f"{made.arch}, {made.dataset.label}{judged}; from {made.provenance.parent}",
        *(held.detector.lines() if held.detector else []),
        f"{found['operations']} operations, {found['integer_layers']} of {found['layers']} layers on integers",
        f"{held.size:,} bytes; {in_tables(found['counted_bytes'])}",
    ])  # fmt: skip


def summary(held: Packed) -> dict[str, Any]:
    """Return a packed file's figures for --json."""
    matrices = layers(held.program)
    return {
        **({"detector": held.detector.to_dict()} if held.detector else {}),
        "bytes": held.size,
        "counted_bytes": held.bits // 8,
        "sha256": held.sha256,
        "operations": len(held.program.operations),
        "layers": len(matrices),
        "integer_layers": sum(whole for _, whole in matrices),
    }


def in_tables(counted: int) -> str:
    """Word the size of a merged network in tables, which differs from the size of its packed file."""
    return f"tables count {counted:,} bytes for the merged checkpoint, whose ends are as trained and which has no description"


def stored(operation: Operation) -> int:
    """Return the bytes of an operation's codes and numbers; shared arrays count each time."""
    matrix = getattr(operation, "matrix", operation)
    total = 0
    for part in vars(matrix).values():
        if isinstance(part, Codes):
            total += codes.size(prod(part.shape), part.levels) + (4 * len(part.low) if len(part.low) > 1 else 0)
        elif isinstance(part, np.ndarray):
            total += 4 * part.size
    return total


def _kind(operation: Operation) -> str:
    if isinstance(operation, Quantize):
        grid = operation.grid
        return f"Quantize {grid.low}..{grid.high}" if isinstance(grid, Steps) else (
            "Quantize -1,1" if grid.edge is None else "Quantize -1,0,1")  # fmt: skip
    return (
        f"{type(operation).__name__} {operation.kind}" if isinstance(operation, Function) else type(operation).__name__
    )


def _weights(operation: Operation) -> str:
    matrix = getattr(operation, "matrix", None)
    if not isinstance(matrix, Matrix):
        return ""
    sizes = "x".join(map(str, matrix.weight.shape))
    if not isinstance(matrix.weight, Codes):
        return f"{sizes} float"
    return f"{sizes} " + {2: "binary", 3: "ternary"}.get(
        matrix.weight.levels, f"{matrix.weight.levels.bit_length() - 1} bit"
    )
