"""Run programs' ONNX models in ONNX Runtime, and look up a model's nodes by their outputs."""

from __future__ import annotations

from typing import Any

import onnx
import onnxruntime
import torch
from onnx import numpy_helper
from torch import Tensor

from deploy.exporting.model import exported
from deploy.program import Program


def session(model: onnx.ModelProto, level: str = "DISABLE_ALL", **told: Any) -> onnxruntime.InferenceSession:
    """Return a session with one CPU thread."""
    options = onnxruntime.SessionOptions()
    options.graph_optimization_level = getattr(onnxruntime.GraphOptimizationLevel, f"ORT_{level}")
    options.intra_op_num_threads = options.inter_op_num_threads = 1
    options.log_severity_level = 3  # ONNX Runtime warns about each model that it writes
    for name, value in told.items():
        setattr(options, name, value)
    return onnxruntime.InferenceSession(model.SerializeToString(), options, providers=["CPUExecutionProvider"])


def answers(made: Program, x: Tensor, level: str = "DISABLE_ALL") -> Tensor:
    """Return ONNX Runtime's answers."""
    return torch.from_numpy(session(exported(made), level).run(None, {"picture": x.numpy()})[0])


class Nodes:
    """The graph of a model.

    Attributes:
        stored: its initialisers, by name.
        maker: by a value's name, the node that computes it.
    """

    def __init__(self, model: onnx.ModelProto) -> None:
        self.all = list(model.graph.node)
        self.stored = {held.name: numpy_helper.to_array(held) for held in model.graph.initializer}
        self.maker = {name: node for node in self.all for name in node.output}

    def of(self, *kinds: str) -> list[onnx.NodeProto]:
        return [node for node in self.all if node.op_type in kinds]

    def kinds(self) -> list[str]:
        return [node.op_type for node in self.all]

    def readers(self, name: str) -> set[str]:
        """Return the kinds of nodes that read a value."""
        return {node.op_type for node in self.all if name in node.input}

    def before(self, node: onnx.NodeProto, place: int = 0) -> onnx.NodeProto | None:
        """Return the node that computes an input; None for a stored tensor."""
        return self.maker.get(node.input[place])
