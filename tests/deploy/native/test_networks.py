"""Whole networks on the native engine: every answer equals the reference's, bit for bit."""

from __future__ import annotations

import itertools

import pytest
import torch

from deploy.native.executor import Native
from deploy.reference.run import run
from tests.deploy.quantized import ENDS, SPECS, SUMS, lowered, merged, pictures

NETWORKS = ("Residual", "ShuffleUnits", "mobilenet_v1", "SqueezeExcite", "Concatenation")
TELLING = ("w8a8", "lsq", "int8", "wbab bacp", "wtat", "w32a4")
SUMMING = ("Residual", "ShuffleUnits", "Concatenation")


@pytest.mark.parametrize(
    ("name", "kind"),
    [
        *(
            pytest.param(*pair, marks=[pytest.mark.slow] * (pair[1] not in TELLING))
            for pair in itertools.product(NETWORKS, SPECS)
        ),
        *itertools.product(SUMMING, SUMS),
        *itertools.product(("Residual", "mobilenet_v1"), ENDS),
    ],
)
def test_answers_are_those_of_the_reference(name: str, kind: str, kernels: str) -> None:
    made, x = lowered(merged(name, kind)), pictures(6)
    native, expected = Native(made, kernels), run(made, x)
    assert "reference" not in native.how
    assert torch.equal(native(x), expected)
