"""Parts of segments: a layer, its batch norm and the quantizer behind, for each kind of quantizer; and small networks of them."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from models.graph.capture.form import capture
from models.graph.normal import NormalForm
from models.layers.bnfold import BNFoldConv2d, FoldedNorm
from models.layers.conv_q import QuantConv2d
from models.layers.quantizers import affine, binary, dorefa, lsq, ternary
from models.layers.quantizers.base import Quantizer
from quant.prepare import prepare
from quant.spec import QuantSpec, affine_spec, uniform
from scripts.speed.variants import SPECS
from tests.tools import networks

MADE: dict[str, tuple[Callable[[Tensor], Quantizer], Callable[[], Quantizer], str]] = {
    "DoReFa": (lambda w: dorefa.DorefaWeight(8), lambda: dorefa.DorefaActivation(8), "relu"),
    "DoReFa, relu6": (lambda w: dorefa.DorefaWeight(4), lambda: dorefa.DorefaActivation(4), "relu6"),
    "LSQ": (lambda w: lsq.LsqWeight(4, w), lambda: lsq.LsqActivation(4, False), "relu"),
    "LSQ, relu6": (lambda w: lsq.LsqWeight(4, w), lambda: lsq.LsqActivation(4, False), "relu6"),
    "INT8, relu6": (lambda w: affine.AffineWeight(8, True, True), lambda: affine.AffineActivation(8, False), "relu6"),
    "LSQ, signed": (lambda w: lsq.LsqWeight(4, w), lambda: lsq.LsqActivation(4, True), "none"),
    "INT8": (lambda w: affine.AffineWeight(8, True, True), lambda: affine.AffineActivation(8, False), "relu"),
    "INT8, symmetric": (lambda w: affine.AffineWeight(8, True, False), lambda: affine.AffineActivation(8, True), "none"),
    **{f"binary, {ste}": (lambda w: binary.BinaryWeight(), lambda ste=ste: binary.BinaryActivation(ste), "none")
       for ste in ("ste", "saturate", "soft")},
    **{f"ternary, {ste}": (lambda w: ternary.TernaryWeight(), lambda ste=ste: ternary.TernaryActivation(ste), "none")
       for ste in ("ste", "saturate", "soft")},
}  # fmt: skip
ACTS: dict[str, Callable[[Tensor], Tensor]] = {"none": lambda x: x, "relu": F.relu, "relu6": F.relu6}


def parts(kind: str, fold: bool, bias: bool) -> tuple[Any, Any, Any, Tensor]:
    """Return a layer, its norm, the quantizer after it, and an input."""
    torch.manual_seed(3)
    weight, activation, _ = MADE[kind]
    conv = nn.Conv2d(8, 21, 3, padding=1, bias=bias)
    layer = QuantConv2d.from_float(conv, weight(conv.weight.detach()), activation())
    norm: nn.Module = nn.BatchNorm2d(21)
    nn.init.normal_(norm.weight)  # some below 0
    nn.init.normal_(norm.bias)
    behind, x = activation(), torch.randn(6, 8, 9, 9).relu()
    if kind.startswith("LSQ"):  # the first batch sets the step
        behind(torch.randn(6, 21, 9, 9) * 3)
        layer(x)
    if fold:
        norm = FoldedNorm.from_norm(norm)
        layer = BNFoldConv2d.from_float(layer, layer.weight_quantizer, layer.input_quantizer).attach(norm)
    return layer, norm, behind, x


def formed(network: nn.Module, spec: QuantSpec | None) -> NormalForm:
    """Return a network in eval mode, after some steps that measure statistics and ranges."""
    torch.manual_seed(5)
    form = capture(network, (3, 12, 12), "network")
    form = (form if spec is None else prepare(form, spec)).to(memory_format=torch.channels_last).train()
    with torch.no_grad():
        for _ in range(3):
            form(torch.randn(16, 3, 12, 12))
    return form.eval()


def form_of(spec: str) -> NormalForm:
    torch.manual_seed(5)
    return quantized(networks.Forked(), spec)


def quantized(network: nn.Module, spec: str) -> NormalForm:
    """Return a network under a quantizer, as `formed`; "float" leaves it in float."""
    known = {
        "float": None, "w8a8": uniform("dorefa", 8, 8), "lsq": uniform("lsq", 4, 4), "int8": affine_spec(8, 8, 0, True),
        "asymmetric": affine_spec(8, 8, 1, False), "binary": SPECS["binary"], "ternary": SPECS["ternary"],
    }  # fmt: skip
    return formed(network, known[spec])
