"""Frozen batch norms: kept in training, pruned with their channels, folded when merged."""

from __future__ import annotations

import pytest
import torch
from torch import nn
from torchvision.ops import FrozenBatchNorm2d

from bn_merge.merge import merge
from engine.data.info import DataInfo
from engine.data.splits import TensorSplit
from models.graph.capture.form import capture
from models.graph.channels.classes import channels, gates
from models.graph.frozen_norm import FrozenNorm
from models.graph.normal import NormalForm
from models.graph.surgery.narrow import masked, narrowed
from models.layers.bnfold import FoldedNorm
from prune.bn_statistics import reestimate_bn
from prune.plan import plan
from prune.widths import Subject
from quant.placement import meet
from quant.prepare import prepare
from quant.spec import affine_spec
from tests.tools.noise import noise

PICTURE = (3, 12, 12)
INFO = DataInfo("digits", "digits", 10, 12, (0.5,) * 3, (0.25,) * 3, 1)


def network(dtype: torch.dtype = torch.float32) -> nn.Module:
    torch.manual_seed(0)
    net = nn.Sequential(
        nn.Conv2d(3, 16, 3, bias=False), FrozenBatchNorm2d(16, eps=1e-3), nn.ReLU(),
        nn.Conv2d(16, 16, 3, bias=False), FrozenBatchNorm2d(16), nn.BatchNorm2d(16), nn.ReLU(),
        nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(16, 10),
    )  # fmt: skip
    for module in net:
        if isinstance(module, FrozenBatchNorm2d):
            for value in (module.running_var, module.weight):
                value.uniform_(0.5, 1.5)
            for value in (module.running_mean, module.bias):
                value.normal_()
    return net.to(dtype)


def form_of(net: nn.Module) -> NormalForm:
    return capture(net, PICTURE, "net")


def test_they_are_modules_with_the_keys_and_values_of_torchvisions() -> None:
    net = network()
    form, x = form_of(net), torch.randn(4, *PICTURE)
    assert isinstance(form.get_submodule("1"), FrozenNorm)
    assert form.get_submodule("1").eps == 1e-3
    assert list(form.state_dict()) == list(net.state_dict())
    torch.testing.assert_close(form(x), net.eval()(x))
    form.load_state_dict(network().state_dict())
    assert "forward" not in vars(net[1])


def test_training_moves_nothing_of_them() -> None:
    form, x = form_of(network()), torch.randn(4, *PICTURE)
    before = {key: value.clone() for key, value in form.get_submodule("1").state_dict().items()}
    form.train()
    optimizer = torch.optim.SGD([p for p in form.parameters() if p.requires_grad], 0.1)
    form(x).square().sum().backward()
    optimizer.step()
    assert not form.get_submodule("1").training
    assert form.get_submodule("5").training
    reestimate_bn(form, TensorSplit(noise(40, PICTURE[1]), torch.arange(40) % 10, INFO, torch.device("cpu")), 8, 1, 3)
    assert all(torch.equal(value, before[key]) for key, value in form.get_submodule("1").state_dict().items())


def test_their_channels_are_cut_by_weights_and_not_by_their_scales() -> None:
    net = network(torch.float64)
    form = form_of(net)
    assert [name for name, _ in gates(form)] == ["5"]
    found = channels(form)
    dropped = plan(Subject(net, form, found, "net"), 0.5, importance="l1").dropped
    small, silent = narrowed(net, form, found, dropped, "net"), masked(form, found, dropped)
    assert isinstance(small.get_submodule("1"), FrozenNorm)
    x = torch.randn(3, *PICTURE, dtype=torch.float64)
    assert sum(t.numel() for t in small.state_dict().values()) < 0.6 * sum(
        t.numel() for t in form.state_dict().values()
    )
    torch.testing.assert_close(small.eval()(x), silent.eval()(x), rtol=0, atol=1e-12)


@pytest.mark.parametrize("fold", [False, True])
def test_merging_folds_them_and_training_does_not(fold: bool) -> None:
    form, x = form_of(network()), torch.randn(8, *PICTURE)
    quantized = prepare(form, meet(affine_spec(8, 8, 1, fold), form))
    assert not isinstance(quantized.get_submodule("1"), FoldedNorm)
    quantized.train()(x)
    quantized.eval()
    merged = merge(quantized)
    assert not any(isinstance(module, FrozenNorm) for module in merged.modules())
    assert (merged(x) - quantized(x)).abs().max() <= 1e-5
