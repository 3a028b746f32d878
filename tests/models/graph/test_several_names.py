"""Networks whose modules or parameters have several names: a wrapper, a block that is repeated, tied weights."""

from __future__ import annotations

import copy
from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from bn_merge.merge import merge
from engine.errors import UserError
from models.files import load_weights
from models.graph.capture.form import capture
from models.graph.channels.classes import channels
from models.graph.flow import is_shared
from models.graph.normal import NormalForm
from models.graph.surgery.narrow import masked, narrowed
from models.graph.surgery.resize import NotLegal, resized
from models.graph.surgery.stored import as_stored
from prune.spare import spared
from quant.placement import meet
from quant.prepare import prepare
from quant.restore import merged_shell
from quant.spec import affine_spec, uniform
from tests.tools.cases import conv_bn

PICTURE = (3, 8, 8)


class Wrapper(nn.Module):
    """Its layers have a name of their own, and one in a sequence."""

    def __init__(self, own_first: bool) -> None:
        super().__init__()
        first, second = conv_bn(3, 6), conv_bn(6, 8)
        if own_first:
            self.one, self.two = first, second
        self.features = nn.Sequential(*first, *second)
        if not own_first:
            self.one, self.two = first, second
        self.fc = nn.Linear(8, 4)

    def forward(self, x: Tensor) -> Tensor:
        return self.fc(self.features(x).mean((2, 3)))


class Branches(nn.Module):
    """TridentNet's: one kernel, two dilations (Li et al., arXiv 1901.01892). Or: two batch norms with one scale."""

    def __init__(self, ties: str) -> None:
        super().__init__()
        self.stem = conv_bn(3, 6)
        self.c1, self.c2 = nn.Conv2d(6, 6, 3, padding=1), nn.Conv2d(6, 6, 3, padding=2, dilation=2)
        self.b1, self.b2 = nn.BatchNorm2d(6), nn.BatchNorm2d(6)
        if ties == "kernels":
            self.c2.weight = self.c1.weight
        else:
            self.b2.weight, self.b2.bias = self.b1.weight, self.b1.bias
        self.fc = nn.Linear(6, 4)

    def forward(self, x: Tensor) -> Tensor:
        x = self.stem(x)
        return self.fc((F.relu(self.b1(self.c1(x))) + F.relu(self.b2(self.c2(x)))).mean((2, 3)))


def repeated() -> nn.Module:
    block = conv_bn(6, 6)
    return nn.Sequential(conv_bn(3, 6), block, block, block, nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(6, 4))


NETWORKS: dict[str, Callable[[], nn.Module]] = {
    "wrapper, own names first": lambda: Wrapper(True), "wrapper, sequence first": lambda: Wrapper(False), "repeated": repeated,
    "tied kernels": lambda: Branches("kernels"), "tied scales": lambda: Branches("scales"),
}  # fmt: skip
NAMES = {
    "wrapper, own names first": [("one.0.weight", "features.0.weight"), ("two.1.running_var", "features.4.running_var")],
    "wrapper, sequence first": [("one.0.weight", "features.0.weight"), ("two.1.running_var", "features.4.running_var")],
    "repeated": [("1.0.weight", "3.0.weight"), ("1.1.running_mean", "2.1.running_mean")],
    "tied kernels": [("c1.weight", "c2.weight")], "tied scales": [("b1.weight", "b2.weight"), ("b1.bias", "b2.bias")],
}  # fmt: skip


def made(name: str) -> tuple[nn.Module, NormalForm]:
    torch.manual_seed(0)
    model = NETWORKS[name]()
    for norm in (m for m in model.modules() if isinstance(m, nn.BatchNorm2d)):
        norm.weight.data.uniform_(0.5, 1.5)
        norm.bias.data.normal_()
    return model, capture(model, PICTURE, "a test")


@pytest.mark.parametrize("change", [None, torch.float64])
@pytest.mark.parametrize("name", NETWORKS)
def test_training_changes_a_tensor_under_all_its_names(name: str, change: torch.dtype | None) -> None:
    """So the file loads into the network, whichever name is loaded last. A conversion to another type keeps it so."""
    _model, form = made(name)
    form.to(dtype=change).train()
    optimizer = torch.optim.SGD(form.parameters(), 0.1)
    before = {key: tensor.clone() for key, tensor in form.state_dict().items()}
    x = torch.randn(8, *PICTURE, dtype=change, generator=torch.Generator().manual_seed(1))
    form(x).square().sum().backward()
    optimizer.step()
    state = form.eval().state_dict()
    for one, other in NAMES[name]:
        assert torch.equal(state[one], state[other])
        assert not torch.equal(state[one], before[one])
    theirs = NETWORKS[name]().to(dtype=change).eval()
    theirs.load_state_dict(state)
    assert torch.equal(theirs(x), form(x))


def cut(name: str) -> tuple[nn.Module, NormalForm, NormalForm]:
    """Return a network, its narrowed copy, and its masked one; a third of the classes are dropped."""
    model, form = made(name)
    found = channels(form)
    classes = sorted({*found.signatures} - {*found.fixed})
    dropped = classes[::3]
    return model, narrowed(model, form, found, dropped, "a test"), masked(form, found, dropped)


@pytest.mark.parametrize("name", NETWORKS)
def test_a_narrower_network_computes_what_the_masked_one_does(name: str) -> None:
    _, small, silenced = cut(name)
    x = torch.randn(4, *PICTURE, dtype=torch.float64, generator=torch.Generator().manual_seed(1))
    assert sum(p.numel() for p in small.parameters()) < sum(p.numel() for p in silenced.parameters())
    assert torch.allclose(small.double().eval()(x), silenced.double().eval()(x), rtol=1e-10)


@pytest.mark.parametrize("name", NETWORKS)
def test_the_file_of_a_narrower_network_fits(name: str) -> None:
    model, small, _ = cut(name)
    state = small.state_dict()
    again = as_stored(model, PICTURE, "a test", {key: tuple(tensor.shape) for key, tensor in state.items()}).model
    again.load_state_dict(state)
    x = torch.randn(4, *PICTURE, generator=torch.Generator().manual_seed(1))
    assert torch.equal(again.eval()(x), small.eval()(x))


def test_a_file_that_gives_a_tensor_two_shapes() -> None:
    model, small, _ = cut("tied kernels")
    stored: dict[str, Any] = {key: tuple(tensor.shape) for key, tensor in small.state_dict().items()}
    rows, *rest = stored["c2.weight"]
    with pytest.raises(NotLegal, match=r"c[12]\.weight has shape"):
        as_stored(model, PICTURE, "a test", {**stored, "c2.weight": (rows - 1, *rest)})
    with pytest.raises(NotLegal, match=r"c2\.weight has shape \(2, 6, 3, 3\), c1\.weight has shape \(1, 6, 3, 3\)"):
        resized(model, {"c1.weight": (1, 6, 3, 3), "c2.weight": (2, 6, 3, 3)})


def test_another_name_is_no_other_user() -> None:
    """A layer that a wrapper names twice has its bias for itself; a repeated one is used by each of its runs."""
    _, form = made("wrapper, own names first")
    assert not is_shared(form, form.get_parameter("features.1.bias"))
    _, form = made("repeated")
    assert is_shared(form, form.get_parameter("1.1.bias"))


def test_a_flag_takes_any_name_of_a_layer() -> None:
    _, form = made("wrapper, own names first")
    assert meet(affine_spec(8, 8, 0, False), form, ["two.*"]).exceptions == ("features.3",)
    whole, found = channels(form), spared(form, channels(form), ["one.0"])
    assert {why for cls, why in found.fixed.items() if cls not in whole.fixed} == {"spared"}
    assert len(found.fixed) - len(whole.fixed) == 6
    with pytest.raises(UserError, match="matches no convolution"):
        spared(form, channels(form), ["three.0"])


def test_the_merged_file_of_a_layer_with_another_name_is_read() -> None:
    """nn.MultiheadAttention holds in_proj_weight and in_proj_bias; the graph has a linear layer in their place."""

    class Attention(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.stem, self.attention, self.fc = (
                conv_bn(3, 8),
                nn.MultiheadAttention(8, 2, batch_first=True),
                nn.Linear(8, 4),
            )

        def forward(self, x: Tensor) -> Tensor:
            x = self.stem(x).flatten(2).transpose(1, 2)
            return self.fc(self.attention(x, x, x, need_weights=False)[0].mean(1))

    torch.manual_seed(0)
    form = capture(Attention(), PICTURE, "a test")
    spec = meet(uniform("dorefa", 8, 8), form)
    model = prepare(copy.deepcopy(form), spec).train()
    x = torch.randn(4, *PICTURE, generator=torch.Generator().manual_seed(1))
    model(x)
    merged = merge(model.eval())
    state = merged.state_dict()
    assert "attention.linear.codes" in state
    again = prepare(copy.deepcopy(form), spec)
    merged_shell(again, state)
    load_weights(again, state)
    assert torch.equal(again.eval()(x), merged(x))
