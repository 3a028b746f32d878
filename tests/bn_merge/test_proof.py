"""A fold that changes what a network computes is found before a file is written, whatever the network's own code does."""

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
from models.blocks import ConvBNAct, GlobalMean
from models.channels import ChannelGroup
from quant.prepare import prepare
from quant.spec import QuantSpec, affine, quantizer
from tests.conftest import assert_refused
from tests.tools.residual import residual


class Before(ConvBNAct):
    """Pre-activation: its batch norm has nothing to do with its convolution's output."""

    def forward(self, x: Tensor) -> Tensor:
        return self.conv(self.act(self.bn(x)))


class Behind(ConvBNAct):
    """A sum stands between the convolution and its batch norm."""

    def forward(self, x: Tensor) -> Tensor:
        return self.act(self.bn(self.conv(x) + x))


class Named(ConvBNAct):
    """Another name, and the same forward."""


class Own(nn.Sequential):
    """One block of a kind, and one more whose batch norm is applied `again`."""

    def __init__(self, kind: type[ConvBNAct], again: bool = False) -> None:
        super().__init__()
        self.cfg, self.ends, self.arch_args, self.again = [], ("stem", "head"), {}, again
        self.stem, self.block, self.mean, self.head = nn.Conv2d(3, 6, 3), kind(6, 6, 3), GlobalMean(), nn.Linear(6, 10)
        nn.init.uniform_(self.block.bn.weight, 0.5, 2)
        nn.init.normal_(self.block.bn.running_mean)

    def forward(self, x: Tensor) -> Tensor:
        x = self.block(self.stem(x))
        return self.head(self.mean(self.block.bn(x) if self.again else x))

    def channel_groups(self) -> list[ChannelGroup]:
        return []


def before(cfg: object = None, classes: int = 10) -> nn.Module:
    return Own(Before)


def again(cfg: object = None, classes: int = 10) -> nn.Module:
    return Own(Named, again=True)


def pictures(count: int = 16) -> Tensor:
    return torch.randn(count, 3, 8, 8, generator=torch.Generator().manual_seed(1))


@pytest.mark.parametrize("kind", [Before, Behind])
def test_a_block_with_a_forward_of_its_own_is_not_folded(kind: type[ConvBNAct]) -> None:
    with pytest.raises(UserError, match=rf"^block is a {kind.__name__} with a forward of its own") as fault:
        merge(Own(kind))
    assert fault.value.code == BAD_CHECKPOINT
    patched = Own(Named)
    patched.block.forward = lambda x: x
    with pytest.raises(UserError, match=r"^block is a Named with a forward of its own"):
        merge(patched)


@pytest.mark.parametrize("spec", [QuantSpec(), affine(8, 8, 1, True)], ids=["float", "folded in training"])
def test_a_subclass_without_one_is(spec: QuantSpec) -> None:
    model = prepare(Own(Named), spec)
    model(pictures())
    prove(model, "m:own", pictures())


@pytest.mark.parametrize("arch", models.names())
def test_networks_of_ours_pass(arch: str) -> None:
    cfg = [8, 8, 16, 16, 8, 32, 32, 16] if arch == "nin_gc" else [4, 4, 8] if arch == "slimming" else [8] * 8
    for kind in (32, 8, "b"):
        model = models.build(arch, cfg)
        model = prepare(model, QuantSpec(quantizer(kind), quantizer(kind)).at_ends(*model.ends))
        model.train()(pictures())
        prove(model, arch, pictures())
    prove(residual(), "m:own", pictures())


def test_what_a_fold_changes_is_a_bug_in_ours_and_a_fault_of_theirs(monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(UserError, match=r"^--arch m:own: .* changes the logits of 16 of 16 pictures") as fault:
        prove(Own(Named, again=True), "m:own", pictures())
    assert fault.value.code == BAD_CHECKPOINT

    def wrong(model: nn.Module) -> nn.Module:
        merged = merge(model)
        merged.block8.conv.bias.add_(1e-6)
        return merged

    monkeypatch.setattr(proof, "merge", wrong)
    with pytest.raises(AssertionError, match="changes the logits of 16 of 16 pictures"):
        prove(models.build("nin", [8] * 8), "nin", pictures())


def test_a_network_without_finite_logits_is_refused() -> None:
    model = models.build("nin", [8] * 8)
    model.block9.conv.bias.data.fill_(float("inf"))
    with pytest.raises(UserError, match="logits are not finite") as fault:
        prove(model, "nin", pictures())
    assert fault.value.code == BAD_CHECKPOINT


@pytest.mark.parametrize(("name", "words"), [("before", "is a Before with"), ("again", "changes the logits of")])
def test_the_command_writes_nothing(command: Callable, name: str, words: str) -> None:
    info, arch = DataInfo("digits", "digits", 10, 8, (0.5,) * 3, (0.25,) * 3), f"{__name__}:{name}"
    model = models.build(arch)
    stages = (Train(),)
    save(Path("own.pth"), make(model, arch, {"classes": 10}, info, Metrics(1.0), stages, Origin(("x",), 1)))
    flags = ("--model", "own.pth", "--arch", arch, "--dataset", "digits", "--image_size", "8", "--cpu")
    assert_refused(command("bn_merge.__main__", *flags), 3, words)
    assert not Path("own_merged.pth").exists()
