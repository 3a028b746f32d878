"""Whole networks in ONNX Runtime without optimisations: the reference's numbers or, if codes lie on an edge, its classes."""

from __future__ import annotations

from functools import cache

import pytest
import torch
from torch import Tensor, nn

pytest.importorskip("onnx")
pytest.importorskip("onnxruntime")

from bn_merge.merge import merge
from deploy.program import Program
from deploy.reference.run import run
from models.graph.capture.form import capture
from models.graph.normal import NormalForm
from quant.spec import uniform
from tests.deploy.exporting.sessions import answers
from tests.deploy.quantized import ENDS, SIDE, SPECS, SUMS, captured, lowered, pictures, trained
from tests.tools.cases import Head, conv_bn

KINDS = {
    **{
        name: SPECS[name]
        for name in (
            "float", "w8a8", "w4a4", "lsq", "int8", "int8 symmetric", "int8 folded", "wbab bacp", "wbab cbap", "wtab",
            "wtat", "wta32", "w32a4",
        )
    },
    "w2a2": uniform("dorefa", 2, 2),
    **SUMS,
    "wbab ends": ENDS["wbab ends"],
}  # fmt: skip
NETWORKS = ("Residual", "Concatenation", "SqueezeExcite", "ShuffleUnits", "mobilenet_v1", "groups")
SUMMING = ("Residual", "Concatenation", "ShuffleUnits")
"""Networks with sums or concatenations of values."""
SILENT = [
    ("SqueezeExcite", kind) for kind in ("wbab bacp", "wbab cbap", "wtab", "wbab ends")
]  # after a ReLU and a gate all signs are +1
SILENT += [("mobilenet_v1", kind) for kind in ("w2a2", "w32a4")]  # all codes are 0
"""Untrained networks that give one answer for all pictures."""


class Groups(nn.Module):
    """Convolutions in groups of several channels, with shuffles between."""

    def __init__(self) -> None:
        super().__init__()
        self.stem, self.one, self.other = conv_bn(3, 16), conv_bn(16, 24, groups=4), conv_bn(24, 24, 1, 2, groups=4)
        self.last, self.head = conv_bn(24, 16, groups=2), Head(16, 10)

    def forward(self, x: Tensor) -> Tensor:
        x = self.one(self.stem(x))
        x = x.reshape(x.shape[0], 4, 6, *x.shape[2:]).transpose(1, 2).flatten(1, 2)
        return self.head(self.last(self.other(x)))


def is_slow(name: str, kind: str) -> bool:
    """Return whether a case runs in the slow tests only: other cases cover the same."""
    return name in ("mobilenet_v1", "groups") or kind in ("int8 folded", "w32a4") or (
        name != "Residual" and kind in ("wbab cbap", "int8 symmetric", "wta32", "w2a2")
    )  # fmt: skip


@cache
def form(name: str) -> NormalForm:
    if name != "groups":
        return captured(name)
    torch.manual_seed(0)
    return capture(Groups().eval(), (3, SIDE, SIDE), "a test")


def made(name: str, kind: str) -> Program:
    return lowered(merge(trained(form(name), KINDS[kind])))


@pytest.mark.parametrize(
    ("name", "kind"),
    [
        pytest.param(name, kind, marks=[pytest.mark.slow] * is_slow(name, kind))
        for name in NETWORKS
        for kind in KINDS
        if (name, kind) not in SILENT and (kind not in SUMS or name in SUMMING)
    ],
)
def test_networks_give_the_numbers_of_the_reference(name: str, kind: str) -> None:
    program, x = made(name, kind), pictures(100)
    expected = run(program, x)
    found, largest = answers(program, x), expected.abs().max()
    assert expected.std(0).mean() > 1e-3 * largest
    apart = (found - expected).abs().amax(1) / largest  # of each picture
    if kind in ("float", "wta32"):  # no codes
        assert apart.max() < 1e-5
    assert (apart < 1e-4).float().mean() > 0.94
    assert (found.argmax(1) == expected.argmax(1)).float().mean() >= 0.99
