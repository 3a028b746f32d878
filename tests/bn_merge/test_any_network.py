"""Networks of any structure under every quantizer: merged, they give the same answers, and their files read back."""

from __future__ import annotations

import copy
from dataclasses import replace
from functools import cache
from pathlib import Path

import pytest
import torch
from torch import Tensor, nn
from torch.nn.modules.batchnorm import _BatchNorm

from bn_merge.merge import merge
from engine.checkpoint import format as checkpoint
from engine.checkpoint.format import Metrics
from engine.checkpoint.history import Merge, Quantize
from engine.checkpoint.provenance import Origin
from engine.data.info import DataInfo
from models.graph.capture.form import capture
from models.graph.chains import chains, unfolded
from models.graph.normal import NormalForm
from models.graph.surgery.resize import resized
from models.layers.conv_q import QuantConv2d, QuantLinear
from quant.placement import meet
from quant.prepare import prepare
from quant.quantizer_spec import quantizer
from quant.restore import open as opened
from quant.spec import QuantSpec, affine_spec, uniform
from tests.tools import cases

SPECS = {
    "float": QuantSpec(),
    "int8": affine_spec(8, 8, 1, False),
    "int8 folded": affine_spec(8, 8, 1, True),
    "w4a4": QuantSpec(quantizer(4), quantizer(4)),
    "wbab bacp": QuantSpec(quantizer("b"), quantizer("b"), order="bacp"),
    "wbab": QuantSpec(quantizer("b"), quantizer("b")),
    "wta8": QuantSpec(quantizer("t"), quantizer(8)),
    "wbat": QuantSpec(quantizer("b"), quantizer("t")),
    "lsq": uniform("lsq", 4, 4),
}


@cache
def network(name: str) -> NormalForm:
    """Return a network with gammas of both signs, a few of them 0."""
    torch.manual_seed(0)
    size = (1 if name == "gray" else 3, 32, 32)
    model = capture(getattr(cases, name)().eval(), size, f"tests.tools.cases:{name}")
    with torch.no_grad():
        for norm in (m for m in model.modules() if isinstance(m, _BatchNorm)):
            norm.weight.uniform_(1, 3).mul_(torch.randn(len(norm.weight)).sign())
            norm.weight[3::8] = 0
            norm.bias.normal_()
    return model


def pictures(model: NormalForm, seed: int, count: int = 4) -> Tensor:
    return torch.randn(count, *model.captured.picture, generator=torch.Generator().manual_seed(seed))


def quantized(name: str, kind: str) -> tuple[NormalForm, QuantSpec]:
    """Return a network in eval mode, after two training passes that set the state of batch norms and quantizers."""
    model = copy.deepcopy(network(name))
    spec = meet(SPECS[kind], model) if kind != "float" else SPECS[kind]
    model = prepare(model, spec)
    for norm in (m for m in model.modules() if isinstance(m, _BatchNorm)):
        norm.momentum = 0.7
    for seed in (2, 3):
        model.train()(pictures(model, seed))
    return model.eval(), spec


@torch.no_grad()
@pytest.mark.parametrize("name", [*cases.NAMES, "OwnWeights", "HoldMore"])
@pytest.mark.parametrize("kind", SPECS)
def test_merged_networks_answer_as_before(kind: str, name: str) -> None:
    model, _ = quantized(name, kind)
    model = model.double()
    x, left = pictures(model, 4).double(), unfolded(model)
    merged, expected = merge(model), model(x)
    one_sided = name == "SqueezeExcite" and kind.startswith("wbab")  # its gated inputs are never negative
    assert one_sided or expected.std(0).max() > 1e-6  # otherwise the comparison shows nothing
    assert (merged(x) - expected).abs().max() <= 1e-10 * expected.abs().max()
    assert [n for n in left if isinstance(merged.get_submodule(n), nn.BatchNorm2d)] == left
    assert chains(merged) == []
    assert not any(isinstance(m, (QuantConv2d, QuantLinear)) for m in merged.modules())


@torch.no_grad()
@pytest.mark.parametrize(
    "name", ["Residual", "SharedConv", "flatten_linear", "ShuffleUnits", "WeightsByFunction", "OwnWeights", "HoldMore"]
)
@pytest.mark.parametrize("kind", ["int8 folded", "wbab bacp", pytest.param("lsq", marks=pytest.mark.slow)])
def test_merged_files_read_back(kind: str, name: str, tmp_path: Path) -> None:
    model, spec = quantized(name, kind)
    spec = replace(spec, by_graph=True)
    info = DataInfo("digits", "digits", 10, 32, (0.5,) * 3, (0.25,) * 3)
    arch, x = f"tests.tools.cases:{name}", pictures(model, 5)
    for network, stages in ((model, ()), (merge(model), (Merge(),))):
        stages = (Quantize(spec=spec.to_dict()), *stages)
        content = checkpoint.make(network, arch, {"classes": 10}, info, Metrics(1.0), stages, Origin(("x",), 1))
        checkpoint.save(tmp_path / "a.pth", content)
        again = opened(tmp_path / "a.pth", arch).network.eval()
        assert torch.equal(again(x), network(x))
        for (key, one), (other, two) in zip(again.state_dict().items(), network.state_dict().items(), strict=True):
            assert (key, one.dtype, one.tolist()) == (other, two.dtype, two.tolist())


@torch.no_grad()
@pytest.mark.parametrize("name", ["OwnWeights", "flatten_linear"])
def test_a_merged_file_of_a_narrower_network_reads_back(name: str, tmp_path: Path) -> None:
    """Its norms are merged, and the weight of a layer that the capture named has another name."""
    plain, arch = getattr(cases, name)().eval(), f"tests.tools.cases:{name}"
    cut = {
        "OwnWeights": {"kernel": (20, 16, 3, 3), "last.0.weight": (16, 20, 1, 1), **norm("bn", 20)},
        "flatten_linear": {"2.0.weight": (20, 16, 3, 3), "4.0.weight": (32, 20, 3, 3), **norm("2.1", 20)},
    }[name]
    model = capture(resized(plain, cut), (3, 32, 32), arch)
    for tensor in model.parameters():
        tensor.copy_(torch.randn(tensor.shape) / 4)
    spec = replace(meet(affine_spec(8, 8, 1, True), model), by_graph=True)
    model = prepare(model, spec)
    model.train()(pictures(model, 2))
    merged, x = merge(model), pictures(model, 5)
    info = DataInfo("digits", "digits", 10, 32, (0.5,) * 3, (0.25,) * 3)
    stages = (Quantize(spec=spec.to_dict()), Merge())
    content = checkpoint.make(merged, arch, {"classes": 10}, info, Metrics(1.0), stages, Origin(("x",), 1))
    checkpoint.save(tmp_path / "a.pth", content)
    assert torch.equal(opened(tmp_path / "a.pth", arch).network.eval()(x), merged(x))


def norm(name: str, width: int) -> dict[str, tuple[int, ...]]:
    return {f"{name}.{part}": (width,) for part in ("weight", "bias", "running_mean", "running_var")}
