"""Preparation refuses what it cannot do to a network whose batch norms stand in no block of ours."""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch
from torch import nn

import models
from engine.errors import USAGE, UserError
from models.blocks import ConvBNAct
from quant.prepare import prepare
from quant.spec import QuantSpec, affine, quantizer
from tests.tools.by_hand import ByHand


def test_batch_norms_that_cannot_be_folded_are_refused() -> None:
    """The file and the report would say that all are."""
    with pytest.raises(UserError, match=r"^norm follows no convolution of a block") as fault:
        prepare(ByHand(), affine(8, 8, 1, True))
    assert (fault.value.code, "--bn_fold 0" in fault.value.hint) == (USAGE, True)
    prepare(ByHand(), affine(8, 8, 1, False))
    apart = prepare(models.build("nin", [8] * 8), replace(affine(8, 8, 1, True), exceptions=("block4.conv",)))
    left = [name for name, m in apart.named_modules() if type(m) is nn.BatchNorm2d]
    assert left == ["block4.bn"], "a float convolution keeps its own"


class Before(ConvBNAct):
    """Pre-activation."""

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.conv(self.act(self.bn(x)))


def test_a_block_with_a_forward_of_its_own_is_not_folded() -> None:
    """Its batch norm may stand anywhere."""
    model = ByHand()
    model.block, model.norm = Before(3, 3), nn.Identity()
    with pytest.raises(UserError, match=r"^block is a Before with a forward of its own") as fault:
        prepare(model, affine(8, 8, 1, True))
    assert (fault.value.code, "--bn_fold 0" in fault.value.hint) == (USAGE, True)
    prepare(model, affine(8, 8, 1, False))
    prepare(models.build("separable", [8] * 8), affine(8, 8, 1, True))


def test_an_order_that_cannot_be_had_is_refused() -> None:
    spec = QuantSpec(quantizer("b"), quantizer("b"))
    with pytest.raises(UserError, match=r"^norm stands in no block with a switch `pool_first`") as fault:
        prepare(ByHand(), replace(spec, order="bacp"))
    assert (fault.value.code, "--order cbap" in fault.value.hint) == (USAGE, True)
    prepare(ByHand(), spec)
