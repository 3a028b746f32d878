"""The model under construction: nodes, stored tensors, and under which name each value of a program is known."""

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
"""Older runtimes refuse models of newer versions; these hold every operation that is needed (ONNX 1.12, ONNX Runtime 1.12)."""
PICTURE, ANSWER = "picture", "answer"


def _constant(program: Program) -> set[int]:
    found: set[int] = set()
    for number, operation in enumerate(program.operations):
        if {*operation.sources} <= found:
            found.add(number + 1)
    return found


class Graph:
    """A model, node by node.

    Attributes:
        at: the names of values as fp32 numbers; those in codes: behind their DequantizeLinear.
        codes: the names of values in codes, uint8.
        ends: values whose ReLU or clamp is left to their codes: the lowest and the highest one.
        constant: values that hang on no picture.
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
        """Add a node and give the name of its output."""
        self.count += 1
        name = f"{kind}_{self.count}"
        self.nodes.append(helper.make_node(kind, list(inputs), [name], name=name, **attributes))
        return name

    def tensor(self, array: NDArray[Any] | Sequence[int] | float, kind: Any = None) -> str:
        """Store a tensor, once for equal contents, and give its name."""
        found = np.ascontiguousarray(np.asarray(array, kind)).reshape(np.shape(array))
        key = (found.dtype.str, found.shape, found.tobytes())
        if key not in self.known:
            name = self.known[key] = f"tensor_{len(self.known)}"
            self.stored[name] = numpy_helper.from_array(found, name)
        return self.known[key]

    def coded(self, x: str, grid: Steps, ends: tuple[int, int] | None = None) -> tuple[str, str]:
        """QuantizeLinear (a Min on the integers, below 8 bits) and DequantizeLinear: the names of codes and numbers.

        Args:
            ends: the lowest and the highest code: a ReLU or clamp before QuantizeLinear would keep engines from integers.
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
        """What the number behind DequantizeLinear is of a code 1."""
        return float(np.float32(1 / grid.inverse)) if isinstance(grid, Steps) else 1.0

    def chain(self, number: int) -> plans.Chain | None:
        """What codes the value of operation `number`, where ReLUs, clamps and max-pools alone stand between."""
        return plans.chain(self.program, number, self.readers)

    def model(self, meta: dict[str, str]) -> onnx.ModelProto:
        """The model, checked."""
        shapes = (self.program.picture, self.program.answer)
        inputs, outputs = (
            [helper.make_tensor_value_info(name, onnx.TensorProto.FLOAT, ["pictures", *shape])]
            for name, shape in zip((PICTURE, ANSWER), shapes, strict=True)
        )
        self.nodes.append(helper.make_node("Identity", [self.at[len(self.program.operations)]], [ANSWER], name=ANSWER))
        graph = helper.make_graph(self.nodes, "network", inputs, outputs, list(self.stored.values()))
        made = helper.make_model(
            graph, opset_imports=[helper.make_opsetid("", OPSET)], ir_version=IR_VERSION,
            producer_name="model-compression",
        )  # fmt: skip
        helper.set_model_props(made, meta)
        onnx.checker.check_model(made, full_check=True)
        return made
