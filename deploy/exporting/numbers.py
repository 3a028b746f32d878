"""Operations on numbers in ONNX."""

from __future__ import annotations

import math

import numpy as np
from onnx import TensorProto

from deploy.executors.plans import ends_of
from deploy.exporting.graph import PICTURE, Graph
from deploy.exporting.layers import left_to_codes
from deploy.operations.functions import Combine, Constant, Function, Product, Reduce, Slopes, Softmax, Standardize

_PLAIN = {
    "abs": "Abs", "ceil": "Ceil", "erf": "Erf", "exp": "Exp", "floor": "Floor", "log": "Log", "relu": "Relu",
    "round": "Round", "sigmoid": "Sigmoid", "sign": "Sign", "sqrt": "Sqrt", "tanh": "Tanh",
}  # fmt: skip
_BOTH = {"add": "Add", "sub": "Sub", "mul": "Mul", "div": "Div", "max": "Max", "min": "Min", "pow": "Pow"}
_COMPARED = {"eq": "Equal", "gt": "Greater", "ge": "GreaterOrEqual", "lt": "Less", "le": "LessOrEqual"}


def function(graph: Graph, number: int, operation: Function) -> None:
    """Add an elementwise function; functions without an ONNX operator are composed of several."""
    x, kind, told = graph.at[operation.sources[0]], operation.kind, operation.settings
    if (ends := ends_of(operation)) is not None and left_to_codes(graph, number, operation, *ends):
        return
    if kind in _PLAIN:
        found = graph.node(_PLAIN[kind], x)
    elif kind == "clamp":
        found = graph.node("Clip", x, *(graph.tensor(end, np.float32) if math.isfinite(end) else "" for end in told))
    elif kind == "elu":
        found = graph.node("Elu", x, alpha=told[0])
    elif kind == "leaky_relu":
        found = graph.node("LeakyRelu", x, alpha=told[0])
    elif kind == "hardsigmoid":
        found = graph.node("HardSigmoid", x, alpha=1 / 6, beta=0.5)
    elif kind == "hardswish":
        found = graph.node("Mul", x, graph.node("HardSigmoid", x, alpha=1 / 6, beta=0.5))
    elif kind == "silu":
        found = graph.node("Mul", x, graph.node("Sigmoid", x))
    elif kind == "mish":
        found = graph.node("Mul", x, graph.node("Tanh", graph.node("Softplus", x)))
    elif kind == "expm1":
        half = graph.node(
            "Tanh", graph.node("Mul", x, graph.tensor(0.5, np.float32))
        )  # small numbers keep their digits
        found = graph.node("Mul", half, graph.node("Add", graph.node("Exp", x), graph.tensor(1.0, np.float32)))
    elif kind == "log1p":
        found = graph.node("Log", graph.node("Add", x, graph.tensor(1.0, np.float32)))
    else:
        found = _gelu(graph, x, by_tanh=kind == "gelu_tanh")
    graph.at[number + 1] = found


def _gelu(graph: Graph, x: str, by_tanh: bool) -> str:
    def times(one: str, factor: float) -> str:
        return graph.node("Mul", one, graph.tensor(factor, np.float32))

    if by_tanh:
        cube = graph.node("Mul", graph.node("Mul", x, x), x)
        inner = graph.node("Tanh", times(graph.node("Add", x, times(cube, 0.044715)), math.sqrt(2 / math.pi)))
    else:
        inner = graph.node("Erf", times(x, math.sqrt(0.5)))
    return graph.node("Mul", times(x, 0.5), graph.node("Add", inner, graph.tensor(1.0, np.float32)))


def slopes(graph: Graph, number: int, operation: Slopes) -> None:
    behind = (1,) * (len(graph.program.values[number + 1].shape) - 1)
    slope = graph.tensor(operation.slope.reshape(-1, *behind))
    graph.at[number + 1] = graph.node("PRelu", graph.at[operation.sources[0]], slope)


def combine(graph: Graph, number: int, operation: Combine) -> None:
    one, other = (graph.at[source] for source in operation.sources)
    if operation.kind in _BOTH:
        found = graph.node(_BOTH[operation.kind], one, other)
    elif operation.kind == "keep":
        kept = graph.node("Cast", other, to=TensorProto.BOOL)
        found = graph.node("Where", kept, one, graph.tensor(0.0, np.float32))
    else:
        same = graph.node(_COMPARED.get(operation.kind, "Equal"), one, other)
        found = graph.node("Not", same) if operation.kind == "ne" else same
        found = graph.node("Cast", found, to=TensorProto.FLOAT)
    graph.at[number + 1] = found


def product(graph: Graph, number: int, operation: Product) -> None:
    graph.at[number + 1] = graph.node("MatMul", *(graph.at[source] for source in operation.sources))


def constant(graph: Graph, number: int, operation: Constant) -> None:
    """Add a constant: stored once if only Combine and Product read it, which broadcast over pictures; else repeated for each picture."""
    held = graph.tensor(operation.numbers[None])
    readers = [graph.program.operations[reader] for reader in graph.readers[number + 1]]
    repeating = [
        isinstance(reader, (Combine, Product)) and not {*reader.sources} <= graph.constant for reader in readers
    ]
    if not repeating or not all(repeating):
        many = graph.node("Slice", graph.node("Shape", PICTURE), *(graph.tensor([n], np.int64) for n in (0, 1)))
        held = graph.node(
            "Expand", held, graph.node("Concat", many, graph.tensor(operation.numbers.shape, np.int64), axis=0)
        )
    graph.at[number + 1] = held


def reduce(graph: Graph, number: int, operation: Reduce) -> None:
    x, axes = graph.at[operation.sources[0]], [axis + 1 for axis in operation.axes]
    if operation.kind == "sum":
        graph.at[number + 1] = graph.node("ReduceSum", x, graph.tensor(axes, np.int64), keepdims=1)
        return
    kind = {"mean": "ReduceMean", "max": "ReduceMax", "min": "ReduceMin"}[operation.kind]
    graph.at[number + 1] = graph.node(kind, x, axes=axes, keepdims=1)


def standardize(graph: Graph, number: int, operation: Standardize) -> None:
    x, axes = graph.at[operation.sources[0]], [axis + 1 for axis in operation.axes]
    apart = graph.node("Sub", x, graph.node("ReduceMean", x, axes=axes, keepdims=1))
    var = graph.node("ReduceMean", graph.node("Mul", apart, apart), axes=axes, keepdims=1)
    root = graph.node("Sqrt", graph.node("Add", var, graph.tensor(operation.eps, np.float32)))
    graph.at[number + 1] = graph.node("Div", apart, root)


def softmax(graph: Graph, number: int, operation: Softmax) -> None:
    graph.at[number + 1] = graph.node(
        "LogSoftmax" if operation.log else "Softmax", graph.at[operation.sources[0]], axis=operation.axis + 1
    )
