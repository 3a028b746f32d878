"""Capture: the normal form answers, trains, is copied, saved and loaded like the original network."""

from __future__ import annotations

import copy
from functools import cache

import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional as F

import models
from engine.errors import UserError
from engine.system.layout import channels_last
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


class Drops(nn.Module):
    """Stochastic depth: training leaves a branch out at random."""

    def forward(self, x: Tensor) -> Tensor:
        return x * torch.bernoulli(torch.full((len(x), 1, 1, 1), 0.5)) if self.training else x


def test_what_training_alone_does_is_named(capsys: pytest.CaptureFixture[str]) -> None:
    capture(Bare(lambda net, x: net.drop(x), drop=Drops()), (3, 16, 16), "net:Net")
    said = capsys.readouterr().err
    assert said.count("\n") == 1
    assert said.startswith("notice: net:Net computes differently in training and in evaluation: drop ")
    capture(cases.AuxiliaryOutputs(), (3, 32, 32), "net:Net")
    assert capsys.readouterr().err == (
        "notice: net:Net: evaluation does not run aux.fc; their parameters stay in the file and are not trained\n"
    )
    capture(cases.WeightsByFunction(), (3, 32, 32), "net:Net")  # the head does not run, but a function reads its weight
    assert capsys.readouterr().err == ""
    capture(cases.flatten_linear(), (3, 32, 32), "net:Net")  # dropout and batch norm are unchanged
    assert capsys.readouterr().err == ""


def counts_in_training(net: nn.Module, x: Tensor) -> Tensor:
    y = x - net.centre[:, None, None]
    if net.training:
        with torch.no_grad():
            net.seen += 1
            net.centre.lerp_(x.mean((0, 2, 3)), 0.1)
    return net.norm(y)


def test_buffers_that_training_alone_changes_are_named(capsys: pytest.CaptureFixture[str]) -> None:
    """The first batch is answered alike, but the next one would not be."""
    own = Bare(counts_in_training, norm=nn.BatchNorm2d(6), seen=torch.zeros(()), centre=torch.zeros(6))
    capture(own, (3, 16, 16), "net:Net")
    assert capsys.readouterr().err == (
        "notice: net:Net: unchanged in training: seen, centre; only its code of training changes them, and training uses "
        "the code of evaluation\n"
    )
    assert own.seen == 0


@pytest.mark.parametrize("name", ["code", "graph", "meta", "recompile", "print_readable"])
@pytest.mark.parametrize("kind", ["parameter", "buffer", "module"])
def test_names_of_fx_are_free(name: str, kind: str) -> None:
    made = {"parameter": nn.Parameter(torch.rand(6, 1, 1)), "buffer": torch.rand(6, 1, 1), "module": nn.Conv2d(6, 6, 1)}

    def run(net: nn.Module, x: Tensor) -> Tensor:
        held = getattr(net, name)
        return held(x) if kind == "module" else x * held

    own = Bare(run, **{name: made[kind]}).eval()
    x = torch.randn(2, 3, 16, 16)
    assert torch.equal(capture(copy.deepcopy(own), (3, 16, 16), "net:Net")(x), own(x))


def test_numbers_that_the_code_makes_follow_the_type_of_the_network() -> None:
    """The proofs run in float64, where the user's code would mix types."""
    form, x = capture(cases.HoldMore().eval(), (3, 32, 32), "net:Net"), torch.randn(2, 3, 32, 32)
    with torch.no_grad():
        before = form(x)
        exact = form.double()(x.double())
        assert exact.dtype is torch.float64
        assert torch.allclose(exact.float(), before, atol=1e-5)
        assert torch.equal(copy.deepcopy(form)(x.double()), exact)
        assert torch.equal(form.float()(x), before)


def _needs_targets(net: nn.Module, x: Tensor) -> Tensor:
    if net.training:
        raise ValueError("in training it takes targets, too")
    return x.relu()


def test_a_forward_that_fails_in_training_is_captured_with_a_notice(capsys: pytest.CaptureFixture[str]) -> None:
    """It is trained with its evaluation graph; torchvision's inception_v3 needs larger pictures in training, others need targets."""
    own = Bare(_needs_targets)
    form, x = capture(own, (3, 16, 16), "net:Net"), torch.randn(2, 3, 16, 16)
    assert torch.equal(form.train()(x), own(x))
    said = capsys.readouterr().err
    assert said.startswith(
        "notice: net:Net computes differently in training and in evaluation (in training its code raises "
    )
    assert "ValueError: in training it takes targets, too); training uses the code of evaluation" in said
    assert not own.training


def test_capture_leaves_no_trace_in_the_network_or_the_generator() -> None:
    own = cases.flatten_linear()
    before = {name: tensor.clone() for name, tensor in own.state_dict().items()}
    torch.manual_seed(5)
    drawn = torch.get_rng_state()
    capture(own, (3, 32, 32), "net")
    assert torch.equal(torch.get_rng_state(), drawn)
    assert all(torch.equal(tensor, before[name]) for name, tensor in own.state_dict().items())


class Frozen(nn.Module):
    """A frozen stage of two layers, and a stage that leaves autocast, as code for mixed precision does."""

    def __init__(self) -> None:
        super().__init__()
        self.first, self.norm, self.second = nn.Conv2d(3, 4, 3), nn.BatchNorm2d(4), nn.Conv2d(4, 4, 3)
        self.factors = torch.arange(4.0).view(4, 1, 1)

    def forward(self, x: Tensor) -> Tensor:
        with torch.no_grad():
            x = self.norm(self.first(x))
            with torch.autocast("cpu", enabled=False):
                y = x * self.factors
        with torch.autocast("cpu", enabled=False):
            return (self.second(x) + y[:, :, 1:-1, 1:-1]).mean((2, 3))


def test_layers_without_gradients_are_layers_of_the_graph() -> None:
    own = Frozen()
    form = capture(copy.deepcopy(own), (3, 8, 8), "net:Net")
    called = {node.target for node in form.captured.graph.find_nodes(op="call_module")}
    assert called == {"first", "norm", "second"}
    x = torch.randn(4, 3, 8, 8)
    for network in (own.train(), form.train()):
        network(x).square().sum().backward()
    assert form.first.weight.grad is None
    assert torch.equal(form.second.weight.grad, own.second.weight.grad)
    assert torch.equal(form.norm.running_mean, own.norm.running_mean)
