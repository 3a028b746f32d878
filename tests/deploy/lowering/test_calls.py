"""Every module and call between layers that programs support: lowered, it computes the same as PyTorch on both executors."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import nn
from torch.nn import functional as F
from torch.nn.modules.batchnorm import _BatchNorm

from bn_merge.merge import merge
from deploy.lowering.calls import CALLS
from deploy.lowering.composed import COMPOSED
from deploy.lowering.computed import COMPUTED
from deploy.lowering.deciding import DECIDING
from deploy.lowering.growing import GROWING
from deploy.lowering.modules import MODULES
from deploy.lowering.moves import MOVES
from deploy.lowering.picking import PICKING
from deploy.lowering.products import PRODUCTS
from deploy.lowering.reductions import REDUCTIONS
from deploy.lowering.resampling import RESAMPLING
from deploy.lowering.walk import RULES
from deploy.lowering.windows import WINDOWS
from deploy.native.executor import Native
from deploy.operations.functions import Function, Softmax
from deploy.reference.run import run
from engine.system.compiled import Unavailable
from models.graph.calls import packet
from models.graph.capture import lift
from tests.deploy.lowering.called import CALLED
from tests.deploy.lowering.calling import Call, assert_same, captured, lowered, network

aten = torch.ops.aten

UNREACHED = {
    **{call: "capture makes a module of it" for call in lift.WITHOUT_WEIGHT if call in RULES},
}


def test_every_rule_is_listed_for_users() -> None:
    page = (
        (Path(__file__).parents[3] / "docs/deployment.md")
        .read_text()
        .partition("## Operations")[2]
        .partition("\n## ")[0]
    )
    names = {"BatchNorm1d", "BatchNorm2d", "Conv1d", "Conv2d", "ConvTranspose2d", "Linear"}
    names.add("view")  # capture makes a reshape of it
    names |= {each.__name__ for each in (*RULES, *MODULES) if not each.__name__.startswith("_")}
    listed = {*re.findall(r"`(\w+)`", page)}
    assert listed == names


def test_every_rule_for_calls_is_here() -> None:
    assert {*RULES} - {*UNREACHED} == {*CALLED}
    assert len(RULES) == sum(
        map(
            len,
            (CALLS, REDUCTIONS, COMPOSED, MOVES, PICKING, GROWING, RESAMPLING, WINDOWS, PRODUCTS, COMPUTED, DECIDING),
        )
    )


@pytest.mark.parametrize(
    ("what", "call"), [pytest.param(w, c, id=f"{w.__name__}-{i}") for w, cs in CALLED.items() for i, c in enumerate(cs)]
)
def test_a_call_computes_what_it_did(what: Any, call: Call) -> None:
    made = network(call)
    form = captured(made)
    assert what in [packet(node) for node in form.captured.graph.nodes]
    assert_same(lowered(form), made)


@torch.no_grad()
def test_logarithms_of_sigmoid_keep_to_infinite_numbers() -> None:
    made = network(lambda s, x: torch.cat([F.logsigmoid(y := (x * 1e4 + s.column * 1e4).exp()), F.softplus(-y)], 1))
    x = torch.randn(3, 3, 8, 8, generator=torch.Generator().manual_seed(1))
    expected = made(x)
    assert made.stem(x).mul(1e4).exp().isinf().any()
    assert torch.allclose(run(lowered(captured(made)), x), expected, atol=1e-5)


def test_functions_of_a_tensor_of_the_network_are_constants() -> None:
    made = network(lambda s, x: x * F.softplus(s.column) + torch.sigmoid(s.map) * F.gelu(s.row))
    program = lowered(captured(made))
    assert not any(isinstance(op, (Function, Softmax)) for op in program.operations)
    assert_same(program, made)


ENGINES = [
    *COMPOSED, *COMPUTED, *WINDOWS, *PICKING, *RESAMPLING, *REDUCTIONS, *DECIDING, *PRODUCTS, aten.repeat, aten.add, aten.sub,
    aten.rsub, aten.log_softmax, aten.pow, aten.avg_pool3d,
]  # fmt: skip
"""Calls that become several operations, or settings of one, compared on other engines, too."""


@pytest.mark.parametrize(
    "call", [pytest.param(c, id=f"{w.__name__}-{i}") for w in ENGINES for i, c in enumerate(CALLED[w])]
)
def test_engines_compute_composed_calls(call: Call) -> None:
    """The native engine gives the bits of the reference, ONNX Runtime the same up to fp32's rounding."""
    program = lowered(captured(network(call)))
    x = torch.randn(3, 3, 8, 8, generator=torch.Generator().manual_seed(1))
    expected = run(program, x)
    try:
        native = Native(program)
    except Unavailable as fault:
        pytest.skip(str(fault))
    assert torch.equal(native(x), expected)
    pytest.importorskip("onnx")
    pytest.importorskip("onnxruntime")
    from tests.deploy.exporting.sessions import answers

    assert (answers(program, x) - expected).abs().max() <= 1e-5 * expected.abs().max()


MADE: dict[type[nn.Module], list[nn.Module | Call]] = {
    nn.Identity: [nn.BatchNorm2d(8)],  # merge replaces it by this
    nn.Dropout: [nn.Dropout()], nn.Dropout2d: [nn.Dropout2d()], nn.AlphaDropout: [nn.AlphaDropout()],
    _BatchNorm: [nn.Sequential(nn.ReLU(), nn.BatchNorm2d(8)), nn.Sequential(nn.ReLU(), nn.BatchNorm2d(8, affine=False)),
                 nn.Sequential(nn.Flatten(2), nn.BatchNorm1d(8)), nn.Sequential(nn.Flatten(), nn.BatchNorm1d(512))],
    nn.ReLU: [nn.ReLU(), lambda s, x: F.relu_(x) + x], nn.ReLU6: [nn.ReLU6()], nn.Hardtanh: [nn.Hardtanh(-0.5, 0.25)],
    nn.LeakyReLU: [nn.LeakyReLU(0.3)], nn.ELU: [nn.ELU(0.5)], nn.GELU: [nn.GELU(), nn.GELU("tanh")], nn.SiLU: [nn.SiLU()],
    nn.Softplus: [nn.Softplus(), nn.Softplus(2, 16), lambda s, x: F.softplus(x * 40)],
    nn.Mish: [nn.Mish()], nn.Sigmoid: [nn.Sigmoid()], nn.Tanh: [nn.Tanh()], nn.Hardswish: [nn.Hardswish()],
    nn.Hardsigmoid: [nn.Hardsigmoid()], nn.PReLU: [nn.PReLU(), nn.PReLU(8, 0.7), nn.Sequential(nn.Flatten(2), nn.PReLU(8))],
    nn.MaxPool2d: [nn.MaxPool2d(3, 2, 1), nn.MaxPool2d((2, 3), ceil_mode=True), nn.MaxPool2d(2, 1, 0, 2), lambda s, x: F.max_pool2d(x, 2)],
    nn.AvgPool2d: [nn.AvgPool2d((3, 2), (2, 1), (1, 0), count_include_pad=False), nn.AvgPool2d(3, 2, 1, True),
                   nn.AvgPool2d(2, divisor_override=3)],
    nn.AdaptiveAvgPool2d: [nn.AdaptiveAvgPool2d(1), nn.AdaptiveAvgPool2d((3, None)), nn.AdaptiveAvgPool2d((5, 16))],
}  # fmt: skip


def test_every_rule_for_modules_is_here() -> None:
    """The only exception is nn.Dropout1d, which capture turns into nn.Dropout2d."""
    assert {*MODULES} - {nn.Dropout1d} == {*MADE}


@pytest.mark.parametrize(
    ("kind", "inner"), [pytest.param(k, m, id=f"{k.__name__}-{i}") for k, ms in MADE.items() for i, m in enumerate(ms)]
)
def test_a_module_computes_what_it_did(kind: type[nn.Module], inner: nn.Module | Call) -> None:
    made = network(inner)
    form = merge(captured(made))
    called = [form.get_submodule(str(node.target)) for node in form.captured.graph.find_nodes(op="call_module")]
    assert any(isinstance(module, kind) for module in called)
    assert_same(lowered(form), made)


@pytest.mark.filterwarnings("ignore:Using padding='same' with even kernel")
@pytest.mark.parametrize(
    "inner",
    [
        nn.Linear(8, 5), nn.Conv2d(8, 6, 3, 2, 1, groups=2), nn.Conv2d(8, 6, (2, 3), padding="same", dilation=2), nn.Conv2d(8, 6, 4, padding="same"),
        nn.Conv2d(8, 6, 3, padding=1, padding_mode="reflect"), nn.Conv2d(8, 6, 4, padding="same", padding_mode="circular"),
        nn.ConvTranspose2d(8, 6, 3, 2, 1, 1, groups=2), nn.ConvTranspose2d(8, 6, (2, 4), 3, dilation=2, bias=False),
        nn.Sequential(nn.Flatten(2), nn.Linear(64, 3, bias=False)),
        nn.Sequential(nn.Flatten(2), nn.Conv1d(8, 6, 3, 2, 1, groups=2)), nn.Sequential(nn.Flatten(2), nn.Conv1d(8, 6, 4, padding="same", bias=False)),
        nn.Sequential(nn.Flatten(2), nn.Conv1d(8, 6, 3, padding=2, dilation=2, padding_mode="circular")),
    ],
    ids=str,
)  # fmt: skip
def test_a_float_layer_computes_what_it_did(inner: nn.Module) -> None:
    made = network(inner)
    assert_same(lowered(captured(made)), made)
