"""The metadata of a model, and its layers: stored integers with a DequantizeLinear, each with its zero point."""

from __future__ import annotations

from functools import cache

import numpy as np
import pytest
import torch

pytest.importorskip("onnx")
pytest.importorskip("onnxruntime")

import onnx

from deploy.exporting.model import exported
from deploy.operations.base import Operation
from deploy.operations.layers import Convolution, Linear, Quantize
from deploy.program import Program
from models.layers.quantizers.base import Steps
from tests.deploy.exporting.sessions import Nodes, session
from tests.deploy.quantized import lowered, merged

CODED = ("w8a8", "w4a4", "lsq", "int8", "int8 symmetric", "wbab bacp", "wtab", "wtat", "wta8")
EVERY = pytest.mark.parametrize(
    ("name", "kind"), [("Residual", kind) for kind in CODED] + [("ShuffleUnits", kind) for kind in ("w8a8", "int8", "wtab")]
)  # fmt: skip


@cache
def made(name: str, kind: str) -> Program:
    return lowered(merged(name, kind))


@cache
def nodes_of(name: str, kind: str) -> Nodes:
    return Nodes(exported(made(name, kind)))


def is_integer(program: Program, operation: Operation) -> bool:
    """Return whether a layer adds integers."""
    if not isinstance(operation, (Convolution, Linear)):
        return False
    return operation.matrix.whole(program.values[operation.sources[0]])


def test_what_a_model_says() -> None:
    model = exported(made("Residual", "w4a4"), arch="mine", classes="a\nb")
    assert [(each.domain, each.version) for each in model.opset_import] == [("", 17)]
    assert model.ir_version == 8  # the newest version that ONNX Runtime 1.12 reads
    assert {each.key: each.value for each in model.metadata_props} == {
        "mean": "0.5 0.5 0.5", "std": "0.25 0.25 0.25", "arch": "mine", "classes": "a\nb",
    }  # fmt: skip
    runs = session(model)
    assert [(each.name, each.shape, each.type) for each in (*runs.get_inputs(), *runs.get_outputs())] == [
        ("picture", ["pictures", 3, 16, 16], "tensor(float)"), ("answer", ["pictures", 10], "tensor(float)"),
    ]  # fmt: skip


def test_one_session_takes_batches_of_any_size() -> None:
    runs, x = session(exported(made("ShuffleUnits", "w4a4"))), np.random.default_rng(0).normal(size=(7, 3, 16, 16))
    together = runs.run(None, {"picture": x.astype(np.float32)})[0]
    for count in (1, 3):
        alone = runs.run(None, {"picture": x[:count].astype(np.float32)})[0]
        np.testing.assert_allclose(alone, together[:count], rtol=1e-5, atol=1e-6)


@EVERY
def test_the_checker_takes_what_is_stored(name: str, kind: str) -> None:
    content = exported(made(name, kind)).SerializeToString()
    again = onnx.load_model_from_string(content)
    onnx.checker.check_model(again, full_check=True)
    kinds = {onnx.TensorProto.DataType.Name(held.data_type) for held in again.graph.initializer}
    assert (
        {"INT8", "INT32"} < kinds <= {"INT8", "UINT8", "INT32", "INT64", "FLOAT"}
    )  # later versions added codes below 8 bits


@EVERY
def test_integer_layers_are_stored_as_integers(name: str, kind: str) -> None:
    """Weights are int8, biases int32. A bias's scale is exactly the fp32 product of the other two, for each channel."""
    program, nodes = made(name, kind), nodes_of(name, kind)
    stored, seen = nodes.stored, 0
    for node in nodes.of("Conv", "Gemm"):
        weight, bias = nodes.before(node, 1), nodes.before(node, 2)
        if bias is None:  # a layer on numbers
            continue
        seen += 1
        codes = nodes.before(node)
        while codes is not None and codes.op_type in ("Pad", "MaxPool"):
            codes = nodes.before(codes)
        assert (codes.op_type, weight.op_type, bias.op_type) == ("DequantizeLinear",) * 3
        step, steps, of_bias = (stored[each.input[1]] for each in (codes, weight, bias))
        values, whole = stored[weight.input[0]], stored[bias.input[0]]
        assert (values.dtype, whole.dtype, steps.shape) == (np.int8, np.int32, values.shape[:1])
        assert (step.shape, step.dtype, steps.dtype) == ((), np.float32, np.float32)
        assert of_bias.tobytes() == (step * steps).tobytes()
    assert seen == sum(is_integer(program, operation) for operation in program.operations) > 1


@EVERY
def test_every_constant_has_a_zero_point_of_its_type(name: str, kind: str) -> None:
    """Without a zero point some runtimes read int8 as uint8. Biases, int32, need none."""
    nodes = nodes_of(name, kind)
    stored, found = nodes.stored, list(nodes.of("DequantizeLinear", "QuantizeLinear"))
    assert {node.op_type for node in found} == {"DequantizeLinear", "QuantizeLinear"}
    for node in found:
        scale, held = stored[node.input[1]], stored.get(node.input[0])
        assert (scale.dtype, bool((scale > 0).all())) == (np.float32, True)
        if held is not None and held.dtype == np.int32:
            assert len(node.input) == 2
            continue
        zero = stored[node.input[2]]
        assert (zero.dtype, zero.shape) == (np.uint8 if held is None else np.int8, scale.shape)
        if held is not None:
            assert node.op_type == "DequantizeLinear"  # the model does not quantize weights itself
            assert not zero.any()


@EVERY
def test_codes_are_read_where_engines_look_for_them(name: str, kind: str) -> None:
    """DequantizeLinear is right before the layer, or before a pool or padding in front of it: engines look nowhere else."""
    nodes = nodes_of(name, kind)
    found = [nodes.readers(node.output[0]) for node in nodes.of("DequantizeLinear")]
    assert all(found)
    signs = {"Mul", "GreaterOrEqual"}  # of integers that saturated
    assert {"Conv", "Gemm"} <= set().union(*found) <= {"Conv", "Gemm", "MaxPool", "Pad", *signs}


@pytest.mark.parametrize("kind", ["w4a4", "lsq", "int7", "w8a8"])
def test_a_min_keeps_codes_within_their_bits(kind: str) -> None:
    program, nodes = made("Residual", kind), nodes_of("Residual", kind)
    grids = {o.grid for o in program.operations if isinstance(o, Quantize) and isinstance(o.grid, Steps)}
    widths = {grid.high - grid.low for grid in grids}
    cut = [node for node in nodes.of("Min") if nodes.before(node).op_type == "QuantizeLinear"]
    limits = {nodes.stored[node.input[1]].item() for node in cut}
    assert limits == widths - {255}
    assert all(nodes.stored[node.input[1]].dtype == np.uint8 for node in cut)
    assert all(nodes.readers(node.output[0]) <= {"DequantizeLinear", "Gather"} for node in cut)
    assert torch.tensor([len(cut), len(limits)]).gt(0).tolist() == [kind != "w8a8"] * 2
