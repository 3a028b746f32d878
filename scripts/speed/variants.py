"""The variants of networks to measure, float and quantized, ready to train."""

from __future__ import annotations

import torch

from models import forms
from models.graph.normal import NormalForm
from quant.placement import meet
from quant.prepare import prepare
from quant.quantizer_spec import for_inputs, quantizer
from quant.spec import QuantSpec, affine_spec, uniform

FLOAT = "float"
SPECS: dict[str, QuantSpec | None] = {
    FLOAT: None,
    "DoReFa W8A8": uniform("dorefa", 8, 8),
    "LSQ W4A4": uniform("lsq", 4, 4),
    "ternary": QuantSpec(quantizer("t"), for_inputs("b"), order="bacp"),
    "binary": QuantSpec(quantizer("b"), for_inputs("b"), order="bacp"),
    "INT8 folded": affine_spec(8, 8, q_type=0, bn_fold=True),
}


def network(arch: str, side: int, variant: str, cfg: list[int] | None = None) -> NormalForm:
    """Return a fresh network for 10 classes, in training mode and quantized according to the variant."""
    torch.manual_seed(1)
    form, spec = forms.build(arch, cfg, side=side), SPECS[variant]
    return (form if spec is None else prepare(form, meet(spec, form))).train()
