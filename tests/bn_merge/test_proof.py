"""A fold that changes a network's answers is found before a file is written, whatever the network's code does."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from torch import Tensor, nn

import models
from bn_merge import proof
from bn_merge.merge import merge
from bn_merge.proof import prove
from engine.checkpoint.format import Metrics, make, save
from engine.checkpoint.history import Train
from engine.checkpoint.provenance import Origin
from engine.data.info import DataInfo
from engine.errors import BAD_CHECKPOINT, UserError
from engine.tasks.classification import CLASSIFICATION
from models.blocks import ConvBNAct
from quant.prepare import prepare
from quant.quantizer_spec import for_inputs, quantizer
from quant.restore import open as opened
from quant.spec import QuantSpec, affine_spec
from tests.tools.by_hand import FOLDED, Own
from tests.tools.networks import NARROW, captured, ends, form
from tests.tools.residual import residual


def pictures(count: int = 16) -> Tensor:
    return torch.randn(count, 3, 8, 8, generator=torch.Generator().manual_seed(1))


@pytest.mark.parametrize("kind", FOLDED, ids=lambda kind: kind.__name__)
@pytest.mark.parametrize("spec", [QuantSpec(), affine_spec(8, 8, 1, True)], ids=["float", "folded in training"])
def test_blocks_with_a_forward_of_their_own_pass(kind: type[ConvBNAct], spec: QuantSpec) -> None:
    model = prepare(captured(Own(kind)), spec)
    model.train()(pictures())
    prove(model, pictures())


@pytest.mark.parametrize("arch", models.names())
def test_networks_of_ours_pass(arch: str) -> None:
    for kind in (32, 8, "b"):
        model = form(arch, NARROW[arch])
        model = prepare(model, QuantSpec(quantizer(kind), quantizer(kind)).at_ends(*ends(model)))
        model.train()(pictures())
        prove(model, pictures())
    prove(captured(residual()), pictures())


def test_what_a_fold_changes_is_a_bug(monkeypatch: pytest.MonkeyPatch) -> None:
    def wrong(model: nn.Module) -> nn.Module:
        merged = merge(model)
        merged.block8.conv.bias.add_(1e-6)
        return merged

    monkeypatch.setattr(proof, "merge", wrong)
    with pytest.raises(AssertionError, match="changes the logits of 16 of 16 pictures"):
        prove(form("nin", [8] * 8), pictures())


@pytest.mark.parametrize("kind", [8, 2, "t", "b"])
@torch.no_grad()
def test_layers_that_read_the_unfolded_inputs_agree_on_every_picture(kind: int | str) -> None:
    """However many values are on edges of codes; and a wrong fold is seen."""
    weight = quantizer(kind)
    model = prepare(form("nin", [8] * 8), QuantSpec(weight, for_inputs("b" if kind == "t" else kind)))
    model.train()(pictures())
    exact = model.double().eval()
    folded = merge(exact)
    x = pictures().double()
    expected = exact(x)
    found = proof._layer_by_layer(exact, folded, x)
    assert found is not None
    assert (found - expected).abs().max() <= 1e-10 * expected.abs().max()
    folded.block5.conv.bias += 5
    assert proof._layer_by_layer(exact, folded, x) is None
    assert (exact(x) == expected).all()


@torch.no_grad()
def test_a_float_layer_behind_layers_with_codes_may_read_rounded_numbers() -> None:
    """Its inputs are no codes: other roundings of the fold are no other codes."""
    model = prepare(
        form("nin", [8] * 8), QuantSpec(quantizer("b"), for_inputs("b")).at_ends(*ends(form("nin", [8] * 8)))
    )
    model.train()(pictures())
    exact = model.double().eval()
    folded = merge(exact)
    folded.block7.conv.bias += 1e-9  # of sums that only the last layer reads as numbers
    x = pictures().double()
    found = proof._layer_by_layer(exact, folded, x)
    assert found is not None


class Strict:
    """A task for which the first comparison says that all pictures changed."""

    output_name, is_finite = CLASSIFICATION.output_name, staticmethod(CLASSIFICATION.is_finite)

    def __init__(self) -> None:
        self.compared = 0

    def changed(self, before: Tensor, after: Tensor) -> int:
        self.compared += 1
        return len(before) if self.compared == 1 else CLASSIFICATION.changed(before, after)


def test_where_most_pictures_change_the_layers_decide(monkeypatch: pytest.MonkeyPatch) -> None:
    model = prepare(form("nin", [8] * 8), QuantSpec(quantizer("b"), for_inputs("b")))
    model.train()(pictures())
    prove(model.eval(), pictures(), task := Strict())
    assert task.compared == 2

    def wrong(model: nn.Module) -> nn.Module:
        merged = merge(model)
        merged.block5.conv.bias.add_(5)
        return merged

    monkeypatch.setattr(proof, "merge", wrong)
    with pytest.raises(AssertionError, match="changes the logits of 16 of 16 pictures"):
        prove(model, pictures(), Strict())


def test_a_network_without_finite_logits_is_refused() -> None:
    model = form("nin", [8] * 8)
    model.block9.conv.bias.data.fill_(float("inf"))
    with pytest.raises(UserError, match="logits are not finite") as fault:
        prove(model, pictures())
    assert fault.value.code == BAD_CHECKPOINT


@pytest.mark.parametrize("name", ["before", "again"])
def test_the_command_leaves_what_it_cannot_fold(command: Callable, name: str) -> None:
    """The written file opens with that batch norm and gives the same answers as before."""
    info, arch = DataInfo("digits", "digits", 10, 8, (0.5,) * 3, (0.25,) * 3), f"tests.tools.by_hand:{name}"
    torch.manual_seed(0)
    model = form(arch)
    save(Path("own.pth"), make(model, arch, {"classes": 10}, info, Metrics(1.0), (Train(),), Origin(("x",), 1)))
    flags = ("--model", "own.pth", "--arch", arch, "--dataset", "digits", "--image_size", "8", "--cpu")
    done = command("bn_merge.__main__", *flags)
    assert (done.code, done.path) == (0, "own_merged.pth"), done.err
    merged = opened(Path("own_merged.pth"), arch).network
    assert [n for n, m in merged.named_modules() if isinstance(m, nn.BatchNorm2d)] == ["block.bn"]
    torch.testing.assert_close(merged(pictures()), model(pictures()), rtol=1e-4, atol=1e-5)
