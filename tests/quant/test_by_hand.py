"""Batch norms right after a convolution are folded in any block; other norms stay, and results are unchanged."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace

import pytest
import torch
from torch import nn

from bn_merge.merge import merge
from models.blocks import ConvBNAct
from models.graph.chains import unfolded
from models.graph.normal import NormalForm
from models.layers.bnfold import BNFoldConv2d, FoldedNorm
from quant.prepare import prepare
from quant.quantizer_spec import quantizer
from quant.restore import open as opened
from quant.spec import QuantSpec, affine_spec
from tests.tools.by_hand import FOLDED, ByHand, Own, Plain
from tests.tools.networks import captured, form


def norms(model: NormalForm) -> list[str]:
    """Return the names of the norms that were not folded in training."""
    return [name for name, m in model.named_modules() if type(m) is nn.BatchNorm2d]


def test_a_batch_norm_folds_in_training_whether_it_stands_in_a_block_or_not() -> None:
    model = prepare(captured(ByHand()), affine_spec(8, 8, 1, True))
    assert norms(model) == []
    assert isinstance(model.norm, FoldedNorm)
    assert isinstance(model.conv, BNFoldConv2d)
    assert norms(prepare(captured(ByHand()), affine_spec(8, 8, 1, False))) == ["block.bn", "norm"]
    apart = prepare(form("nin", [8] * 8), replace(affine_spec(8, 8, 1, True), exceptions=("block4.conv",)))
    assert norms(apart) == ["block4.bn"], "a float convolution keeps its own"


@torch.no_grad()
@pytest.mark.parametrize("kind", FOLDED, ids=lambda kind: kind.__name__)
@pytest.mark.parametrize("bn_fold", [False, True])
def test_a_forward_of_its_own_is_folded_where_that_is_right(kind: type[ConvBNAct], bn_fold: bool) -> None:
    torch.manual_seed(0)
    model = prepare(captured(Own(kind)), affine_spec(8, 8, 1, bn_fold).at_ends(["stem"], ["head"])).double()
    x = torch.randn(8, 3, 8, 8).double()
    for _ in range(3):
        model.train()(x)
    left = [] if FOLDED[kind] else ["block.bn"]
    assert norms(model) == (left if bn_fold else ["block.bn"])
    assert unfolded(model) == left
    merged = merge(model.eval())
    assert norms(merged) == left
    torch.testing.assert_close(merged(x), model(x), rtol=0, atol=1e-10)


def test_where_there_is_no_pool_both_orders_are_the_same() -> None:
    spec, x = QuantSpec(quantizer("b"), quantizer("b")), torch.randn(4, 3, 8, 8)
    model = captured(Plain(10))
    outputs = [prepare(model, replace(spec, order=order))(x) for order in ("cbap", "bacp")]
    assert torch.equal(*outputs)


OWN = ("--arch", "tests.tools.by_hand:plain", "--dataset", "digits")
SHORT = ("--image_size", "8", "--epochs", "1", "--cpu", "--quiet")


@pytest.mark.parametrize(
    ("module", "flags"),
    [
        ("quant.wqaq", ("--q_type", 0, "--bn_fold", 1)),
        ("quant.ptq", ("--calibrate", "kl", "--Wbits", 4)),
        ("quant.wbwtab", ("--order=bacp", "--W", 3)),
        ("quant.wqaq", ("--Wbits", "t", "--Abits", "b")),
    ],
)
def test_every_command_takes_a_network_of_torchs_own_modules(
    module: str, flags: tuple, command: Callable[..., SimpleNamespace]
) -> None:
    assert command("prune.train", *OWN, *SHORT, "--save", "net.pth").code == 0
    start = ("--model", "net.pth", "--cpu") if module == "quant.ptq" else ("--refine", "net.pth", *SHORT)
    done = command(module, *OWN, *start, *flags, "--save", "q.pth")
    assert done.code == 0, done.err
    merged = command("bn_merge.__main__", "--model", "q.pth", *OWN, "--cpu")
    assert (merged.code, merged.path) == (0, "q_merged.pth"), merged.err
    assert norms(opened(Path("q_merged.pth"), OWN[1]).network) == []
