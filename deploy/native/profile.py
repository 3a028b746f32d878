"""Profile a network on the native engine, operation by operation, and measure the core's peak rate."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from math import prod

import numpy as np
from torch import Tensor

from deploy.native import steps
from deploy.native.executor import Native
from deploy.operations.base import Operation, Value
from deploy.operations.functions import Product
from deploy.operations.layers import Convolution, Linear, Transposed
from deploy.program import Program

KERNELS = {
    steps.MOVE: "move", steps.LAYER: "bytes", steps.DEPTHWISE: "depthwise", steps.SIGNS: "bits", steps.WIDE: "fp64",
    steps.REFERENCE: "reference", steps.TOTALS: "totals", steps.THREES: "threes", steps.PRODUCT: "products", steps.TRANSPOSED: "fp64",
}  # fmt: skip
RUNS = 5
PEAK_SECONDS = 0.05


@dataclass(frozen=True)
class Spent:
    """The time of one operation for one picture, on one thread.

    Args:
        kernel: the kernel that computes it.
        seconds: of all its steps.
        macs: multiply-accumulates of a layer; 0 for other operations.
    """

    name: str
    kind: str
    kernel: str
    seconds: float
    macs: int


@dataclass(frozen=True)
class Peaks:
    """The measured peak of one core, in multiply-accumulates per second: of bytes, and of signs."""

    of_bytes: float
    of_bits: float


def peaks(native: Native) -> Peaks:
    library, which = native.engine.library, native.engine.which
    return Peaks(*(library.mc_peak(which, bits, PEAK_SECONDS) for bits in (0, 1)))


def macs(operation: Operation, given: Sequence[Value]) -> int:
    """Return the multiply-accumulates of a layer or a product for one picture; 0 for other operations."""
    if isinstance(operation, Product):
        return prod(operation.value(*given).shape) * given[0].shape[-1]
    if isinstance(operation, Transposed):
        return prod(given[0].shape[1:]) * prod(operation.weight.shape)
    if not isinstance(operation, (Convolution, Linear)):
        return 0
    shape = operation.value(*given).shape
    places = prod(shape[1:]) if isinstance(operation, Convolution) else prod(shape[:-1])
    return prod(operation.matrix.weight.shape) * places


def total_macs(program: Program) -> int:
    return sum(
        macs(operation, [program.values[source] for source in operation.sources]) for operation in program.operations
    )


def spent(native: Native, x: Tensor) -> list[Spent]:
    """Return the time of each operation that has steps, in order: the shortest of 5 runs.

    The time of an operation that a layer computes along with its own counts as the layer's; that of a move that the next
    move does as well counts as the next one's. Such operations are left out.

    Args:
        x: normalised pictures, (N, *program.picture).
    """
    program = native.program
    native.profile(x)
    runs = [native.profile(x) for _ in range(RUNS)]
    seconds = np.min([[took for _, took in run] for run in runs], axis=0) / len(x)
    found: dict[int, Spent] = {}
    for step, (number, _), took in zip(native.plan.steps, runs[0], seconds.tolist(), strict=True):
        operation = program.operations[number]
        if number in found:
            before = found[number]
            kernel = before.kernel if step.operation in (steps.MOVE, steps.MAXPOOL) else _kernel(step)
            found[number] = Spent(before.name, before.kind, kernel, before.seconds + took, before.macs)
            continue
        given = [program.values[source] for source in operation.sources]
        found[number] = Spent(operation.name, type(operation).__name__, _kernel(step), took, macs(operation, given))
    return [found[number] for number in sorted(found)]


def _kernel(step: steps.Step) -> str:
    if step.operation == steps.LAYER:
        return "bytes" if step.what else "shorts"
    return KERNELS.get(step.operation, "numbers")


def table(found: list[Spent]) -> list[list[str]]:
    """Return rows of text, headers first: microseconds per picture, their share, and the rate."""
    whole = sum(each.seconds for each in found) or 1.0
    rows = [["layer", "operation", "kernel", "us a picture", "share", "MMAC", "GMAC/s"]]
    for each in found:
        rate = f"{each.macs / each.seconds / 1e9:.0f}" if each.macs and each.seconds else ""
        million = f"{each.macs / 1e6:.2f}" if each.macs else ""
        share = f"{100 * each.seconds / whole:.1f} %"
        rows.append([each.name, each.kind, each.kernel, f"{1e6 * each.seconds:.1f}", share, million, rate])
    return rows
