"""Preparation refuses what it cannot do to a network whose batch norms stand in no block of ours."""

from __future__ import annotations

import shlex
from collections.abc import Callable
from dataclasses import replace
from types import SimpleNamespace

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


OWN = ("--arch", "tests.tools.by_hand:plain", "--dataset", "digits")
SHORT = ("--image_size", "8", "--epochs", "1", "--cpu", "--quiet")


@pytest.fixture
def plain(command: Callable[..., SimpleNamespace]) -> Callable[..., SimpleNamespace]:
    """`command` beside a trained network whose batch norm stands in no block."""
    trained = command("prune.train", *OWN, *SHORT, "--save", "net.pth")
    assert trained.code == 0, trained.err
    return command


@pytest.mark.parametrize(
    ("module", "argv", "remedy"),
    [
        ("quant.wqaq", (*OWN, "--refine", "net.pth", "--q_type", 0, "--bn_fold", 1),
         (*OWN, "--refine", "net.pth", "--q_type", "0", "--bn_fold", "0")),
        ("quant.ptq", (*OWN, "--model", "net.pth", "--calibrate", "kl", "--Wbits", 4),
         ("quant.wqaq", *OWN, "--Wbits", "4", "--refine", "net.pth", "--bn_fold", "0")),
        ("quant.wbwtab", (*OWN, "--refine", "net.pth", "--order=bacp", "--W", 3),
         (*OWN, "--refine", "net.pth", "--W", "3", "--order", "cbap")),
        ("quant.wqaq", (*OWN, "--refine", "net.pth", "--Wbits", "t", "--Abits", "b"),
         ("quant.wbwtab", "--W", "3", "--A", "2", *OWN, "--refine", "net.pth", "--order", "cbap")),
    ],
)  # fmt: skip
def test_the_other_way_is_the_command_that_was_given_with_one_flag_changed(
    module: str, argv: tuple, remedy: tuple[str, ...], plain: Callable[..., SimpleNamespace]
) -> None:
    refused = plain(module, *argv, "--cpu", "--save", "q.pth")
    assert refused.code == USAGE
    words = shlex.split(refused.err.partition(": python -m ")[2])
    given = [word for word in words if word not in ("--cpu", "--save", "q.pth")]
    assert given == [*(() if remedy[0].startswith("quant.") else (module,)), *remedy]
    assert plain(*words, *SHORT[:3], 1).code == 0


def test_no_other_order_is_promised_where_there_is_none(plain: Callable[..., SimpleNamespace]) -> None:
    refused = plain("quant.wqaq", *OWN, "--refine", "net.pth", "--Wbits", 4, "--Abits", "b", "--cpu")
    assert refused.err.endswith("hint: build on models.blocks.ConvBNAct\n")
