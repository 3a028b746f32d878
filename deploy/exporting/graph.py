"""The ONNX model under construction: nodes, stored tensors, and the name of each value of a program."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import onnx
from numpy.typing import NDArray
from onnx import helper, numpy_helper

from deploy.executors import plans
from deploy.program import Program
from models.layers.quantizers.base import Signs, Steps

OPSET, IR_VERSION = 17, 8
"""The oldest versions that have every operation needed here (ONNX 1.12, ONNX Runtime 1.12): old runtimes refuse newer models."""
PICTURE, ANSWER = "picture", "answer"


def _constant(program: Program) -> set[int]:
    found: set[int] = set()
    for number, operation in enumerate(program.operations):
        if {*operation.sources} <= found:
            found.add(number + 1)
    return found


class NotInFp32(Exception):
    """A number that an ONNX model has to hold is too large or too small for fp32; the text names it."""


class Graph:
    """An ONNX model, built node by node.

    Attributes:
        at: the names of values as fp32 numbers; for values in codes, the output of their DequantizeLinear.
        codes: the names of values in codes, uint8.
        ends: the lowest and highest code of values whose ReLU or clamp is done on the codes.
        constant: values that do not depend on the picture.
    """

    def __init__(self, program: Program) -> None:
        self.program, self.readers = program, plans.readers(program)
        self.nodes: list[onnx.NodeProto] = []
        self.stored: dict[str, onnx.TensorProto] = {}
        self.known: dict[tuple[Any, ...], str] = {}
        self.at = {0: PICTURE}
        self.codes: dict[int, str] = {}
        self.ends: dict[int, tuple[int, int]] = {}
        self.constant = _constant(program)
        self.count = 0

    def node(self, kind: str, *inputs: str, **attributes: Any) -> str:
        """Add a node and return the name of its output."""
        self.count += 1
        name = f"{kind}_{self.count}"
        self.nodes.append(helper.make_node(kind, list(inputs), [name], name=name, **attributes))
        return name

    def tensor(self, array: NDArray[Any] | Sequence[int] | float, kind: Any = None) -> str:
        """Store a tensor, equal ones once, and return its name.

        Raises:
            NotInFp32: if fp32 cannot hold one of its numbers.
        """
        found = np.ascontiguousarray(np.asarray(array, kind)).reshape(np.shape(array))
        if found.dtype.kind == "f" and not np.isfinite(found).all():
            raise NotInFp32("a number that fp32 cannot hold")
        key = (found.dtype.str, found.shape, found.tobytes())
        if key not in self.known:
            name = self.known[key] = f"tensor_{len(self.known)}"
            self.stored[name] = numpy_helper.from_array(found, name)
        return self.known[key]

    def coded(self, x: str, grid: Steps, ends: tuple[int, int] | None = None) -> tuple[str, str]:
        """Add QuantizeLinear, a Max or Min on the codes where the range is narrower than uint8, and DequantizeLinear.

        Args:
            ends: the lowest and highest code; with a ReLU or clamp before QuantizeLinear, engines would not use integers.

        Returns:
            the names of the codes and of the numbers.
        """
        low, high = ends or (grid.low, grid.high)
        step, zero = self.tensor(1 / grid.inverse, np.float32), self.tensor(-grid.low, np.uint8)
        codes = self.node("QuantizeLinear", x, step, zero)
        if low > grid.low:
            codes = self.node("Max", codes, self.tensor(low - grid.low, np.uint8))
        if high - grid.low < 255:
            codes = self.node("Min", codes, self.tensor(high - grid.low, np.uint8))
        return codes, self.node("DequantizeLinear", codes, step, zero)

    def unit(self, grid: Steps | Signs | None) -> float:
        """Return the number that DequantizeLinear gives for the code 1."""
        return float(np.float32(1 / grid.inverse)) if isinstance(grid, Steps) else 1.0

    def chain(self, number: int) -> plans.Chain | None:
        """Return the chain from operation `number` to codes with only ReLUs, clamps and max-pools between; else None."""
        return plans.chain(self.program, number, self.readers)

    def _read(self) -> tuple[list[onnx.NodeProto], set[str]]:
        """Return the nodes that the answer depends on, in order, and the names that they read."""
        kept, read = [], {ANSWER}
        for node in reversed(self.nodes):
            if not read.isdisjoint(node.output):
                kept.append(node)
                read.update(node.input)
        return kept[::-1], read

    def model(self, meta: dict[str, str]) -> onnx.ModelProto:
        """Return the model, checked by onnx.checker."""
        shapes = (self.program.picture, self.program.answer)
        inputs, outputs = (
            [helper.make_tensor_value_info(name, onnx.TensorProto.FLOAT, ["pictures", *shape])]
            for name, shape in zip((PICTURE, ANSWER), shapes, strict=True)
        )
        self.nodes.append(helper.make_node("Identity", [self.at[len(self.program.operations)]], [ANSWER], name=ANSWER))
        nodes, read = self._read()
        stored = [held for name, held in self.stored.items() if name in read]
        graph = helper.make_graph(nodes, "network", inputs, outputs, stored)
        made = helper.make_model(
            graph, opset_imports=[helper.make_opsetid("", OPSET)], ir_version=IR_VERSION,
            producer_name="model-compression",
        )  # fmt: skip
        helper.set_model_props(made, meta)
        onnx.checker.check_model(made, full_check=True)
        return made
