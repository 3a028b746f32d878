"""Capture: the normal form answers, trains, is copied, saved and loaded like the original network."""

from __future__ import annotations

import copy
from collections.abc import Callable
from functools import cache

import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional as F

import models
from engine.errors import UserError
from engine.numerics.layout import channels_last
from models.graph.calls import changes
from models.graph.capture.form import capture
from models.graph.normal import NormalForm
from tests.tools import cases
from tests.tools.cases import NAMES
from tests.tools.odd_networks import ODD, Bare


def network(name: str) -> tuple[nn.Module, NormalForm]:
    """Return a network, and the normal form of a copy of it; the caller may change both."""
    return copy.deepcopy(_made(name))


@cache
def _made(name: str) -> tuple[nn.Module, NormalForm]:
    torch.manual_seed(0)
    own = getattr(cases, name)(10) if hasattr(cases, name) else models.build(name, classes=10)
    return own, capture(copy.deepcopy(own), (1 if name == "gray" else 3, 32, 32), name)


def pictures(form: NormalForm, count: int = 5) -> Tensor:
    return torch.randn(count, *form.captured.picture, generator=torch.Generator().manual_seed(7))


@pytest.mark.parametrize("name", [*NAMES, *models.names()])
def test_it_answers_and_trains_bit_for_bit_as_the_network_does(name: str) -> None:
    own, form = network(name)
    x = pictures(form)
    for count in (1, 5):
        assert torch.equal(own.eval()(x[:count]), form.eval()(x[:count]))
    losses = []
    for model in (own, form):
        torch.manual_seed(3)
        found = model.train()(x)
        loss = F.cross_entropy(found[0] if isinstance(found, tuple) else found, torch.arange(5))
        loss.backward()
        losses.append(loss)
    assert torch.equal(*losses)
    grads = {n: p.grad for n, p in own.named_parameters()}
    unused = {n for n in grads if n.startswith("aux.")}
    assert {n for n, _ in form.named_parameters()} == set(grads) - unused
    for n, parameter in form.named_parameters():
        assert torch.equal(parameter.grad, grads[n]), n
    for n, buffer in own.named_buffers():
        assert torch.equal(buffer, dict(form.named_buffers())[n]), n


@pytest.mark.parametrize("name", [*NAMES, *models.names()])
def test_its_file_is_the_networks_own(name: str) -> None:
    """The keys and their order are equal, each loads the other's state dict strictly, and a copy is independent."""
    own, form = network(name)
    assert list(form.state_dict()) == list(own.state_dict())
    with torch.no_grad():
        for parameter in own.parameters():
            parameter.add_(0.01)
    form.load_state_dict(own.state_dict())
    twin = copy.deepcopy(form)
    x = pictures(form)
    expected = own.eval()(x)
    assert torch.equal(form.eval()(x), expected)
    with torch.no_grad():
        for parameter in form.parameters():
            parameter.zero_()
    assert torch.equal(twin.eval()(x), expected)
    own.load_state_dict(twin.state_dict())


@pytest.mark.parametrize("name", [*NAMES, *models.names()])
def test_it_computes_in_float64(name: str) -> None:
    own, form = network(name)
    x = pictures(form).double()
    assert torch.equal(own.double().eval()(x), form.double().eval()(x))


def test_modules_and_operations_have_the_names_that_they_had() -> None:
    _, form = network("nin")
    called = [node.target for node in form.captured.graph.nodes if node.op == "call_module"]
    assert called[:8] == [
        "block1.conv", "block1.bn", "block1.act", "block2.conv", "block2.bn", "block2.act", "block3.conv", "block3.bn",
    ]  # fmt: skip
    assert called[8:10] == ["block3.pool", "block3.act"]
    _, form = network("SharedConv")
    called = [node.target for node in form.captured.graph.nodes if node.op == "call_module"]
    assert called == [
        "stem.0", "stem.1", "stem.2", "max_pool2d", "conv", "bn1", "relu", "conv", "bn2", "relu_1", "head.fc",
    ]  # fmt: skip


@pytest.mark.parametrize("name", ODD)
def test_odd_networks_are_captured_exactly(name: str, capsys: pytest.CaptureFixture[str]) -> None:
    torch.manual_seed(0)
    own = ODD[name]()
    form = capture(copy.deepcopy(own), (3, 16, 16), name)
    x = torch.randn(4, 3, 16, 16)
    given = x.clone()
    expected = own.eval()(x)
    assert torch.equal(form(x), expected)
    assert torch.equal(x, given)  # the caller's pictures are unchanged
    assert set(form.state_dict()) == set(own.state_dict())
    form.load_state_dict(own.state_dict())
    own.load_state_dict(copy.deepcopy(form).state_dict())
    exact = own.double().eval()(x.double())
    assert torch.allclose(form.double()(x.double()), exact, rtol=0, atol=1e-6 if name == "converted" else 0)
    frozen = {n for n, p in own.named_parameters() if not p.requires_grad}
    assert {n for n, p in form.named_parameters() if not p.requires_grad} == frozen
    form.train()(x.double()).sum().backward()
    assert all(p.grad is not None for p in form.parameters() if p.requires_grad)


def test_a_raw_kernel_is_a_convolution_under_the_key_that_it_had() -> None:
    form = capture(ODD["raw kernel"](), (3, 16, 16), "raw")
    layers = [name for name, module in form.named_modules() if isinstance(module, nn.Conv2d)]
    assert layers == ["stem", "conv2d", "conv2d_1", "conv2d_2"]
    assert len({id(form.get_submodule(name).weight) for name in layers[1:]}) == 1
    assert {"kernel", "shift"} <= set(form.state_dict())


def test_tensors_that_evaluation_does_not_use_are_kept_and_not_trained() -> None:
    own = ODD["unused"]()
    form = capture(own, (3, 16, 16), "unused")
    assert "spare.weight" in form.state_dict()
    assert not [name for name, _ in form.named_parameters() if name.startswith("spare")]
    assert form.captured.vanished == ("spare",)


@pytest.mark.parametrize("name", ["changed and read", "sum in place", "one activation, twice", "view changed"])
def test_values_are_not_changed_in_place(name: str) -> None:
    """A transform may then share or drop the maker of a value. In-place changes of a part of a value are kept."""
    kept = 1 if name == "view changed" else 0
    form = capture(ODD[name](), (3, 16, 16), name)
    assert sum(map(changes, form.captured.graph.nodes)) == kept


def test_views_work_in_channels_last_memory() -> None:
    own = Bare(lambda net, x: x.view(x.shape[0], 6, 256).mean(2)[..., None, None])
    form = capture(copy.deepcopy(own), (3, 16, 16), "net").to(memory_format=torch.channels_last)
    x = torch.randn(2, 3, 16, 16)
    assert torch.allclose(form(x.to(memory_format=torch.channels_last)), own.eval()(x), atol=1e-6)


def test_complex_numbers_work_in_channels_last_memory() -> None:
    """Both parts of a complex number have to stand side by side, but in channels last the channels do."""

    def turned(net: nn.Module, x: Tensor) -> Tensor:
        y = torch.view_as_complex(x.unflatten(3, (8, 2))) * torch.view_as_complex(net.waves)
        return torch.view_as_real(y).flatten(3)

    own = Bare(turned, waves=nn.Parameter(torch.randn(6, 16, 8, 2)))
    form = channels_last(capture(copy.deepcopy(own), (3, 16, 16), "net"))
    x = torch.randn(2, 3, 16, 16)
    assert torch.allclose(form(x.to(memory_format=torch.channels_last)), own.eval()(x), atol=1e-6)


def test_another_picture_size_is_refused() -> None:
    form = capture(cases.prelu(), (3, 32, 32), "prelu")
    with pytest.raises(UserError, match="captured for pictures of 3x32x32, not 3x16x16"):
        form(torch.randn(1, 3, 16, 16))


def overwritten(net: nn.Module, x: Tensor) -> Tensor:
    found = x * 2
    found[:] = x.relu()
    return found + 1


def overwritten_by_one_for_all(net: nn.Module, x: Tensor) -> Tensor:
    found, mean = x * 2, x.mean((2, 3), keepdim=True)
    found[:, :] = mean
    found[:, :, 1:] += 1  # the mean itself stays
    return found + mean


def overwritten_in_part(net: nn.Module, x: Tensor) -> Tensor:
    found = x * 2
    found[:, 1:] = x.relu()[:, 1:]
    return found


def overwritten_by_another_type(net: nn.Module, x: Tensor) -> Tensor:
    found = x * 2
    found[:] = x > 0
    return found / 3 + x


@pytest.mark.parametrize(
    "run", [overwritten, overwritten_by_one_for_all, overwritten_in_part, overwritten_by_another_type]
)
def test_values_that_are_overwritten_train_as_before(run: Callable[[nn.Module, Tensor], Tensor]) -> None:
    own = Bare(run)
    form = capture(copy.deepcopy(own), (3, 16, 16), "net")
    x = torch.randn(4, 3, 16, 16)
    for model in (own, form):
        model.train()(x).square().sum().backward()
    for mine, its in zip(own.parameters(), form.parameters(), strict=True):
        assert its.grad is not None
        assert torch.equal(mine.grad, its.grad)
