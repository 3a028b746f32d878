"""What capture says of code that only training runs, and of networks that mix the pictures of a batch."""

from __future__ import annotations

import copy
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from models.graph.capture.form import capture
from tests.tools import cases
from tests.tools.odd_networks import Bare


class Drops(nn.Module):
    """Stochastic depth: training leaves a branch out at random."""

    def forward(self, x: Tensor) -> Tensor:
        return x * torch.bernoulli(torch.full((len(x), 1, 1, 1), 0.5)) if self.training else x


def test_what_training_alone_does_is_named(capsys: pytest.CaptureFixture[str]) -> None:
    capture(Bare(lambda net, x: net.drop(x), drop=Drops()), (3, 16, 16), "net:Net")
    said = capsys.readouterr().err
    assert said.count("\n") == 1
    assert said.startswith(
        "notice: net:Net computes differently in training and in evaluation: only training uses drop; "
    )
    capture(cases.AuxiliaryOutputs(), (3, 32, 32), "net:Net")
    assert capsys.readouterr().err == (
        "notice: net:Net: evaluation does not use aux.fc; parameters there stay in the file and are not trained\n"
    )
    capture(cases.WeightsByFunction(), (3, 32, 32), "net:Net")  # the head does not run, but a function reads its weight
    assert capsys.readouterr().err == ""
    capture(cases.flatten_linear(), (3, 32, 32), "net:Net")  # dropout and batch norm are unchanged
    assert capsys.readouterr().err == ""


def test_stochastic_depth_of_a_branch_that_begins_at_0_is_named(capsys: pytest.CaptureFixture[str]) -> None:
    """Outputs are the same whether the branch is dropped or not; its gradients are not."""
    branch = nn.BatchNorm2d(6)
    nn.init.zeros_(branch.weight)
    capture(Bare(lambda net, x: x + net.drop(net.branch(x)), branch=branch, drop=Drops()), (3, 16, 16), "net:Net")
    said = capsys.readouterr().err
    assert said.startswith(
        "notice: net:Net computes differently in training and in evaluation: only training uses drop"
    )


class Blind(nn.Module):
    def __init__(self, tracks: bool) -> None:
        super().__init__()
        self.conv, self.norm = nn.Conv2d(3, 6, 3), nn.BatchNorm2d(6, track_running_stats=tracks)

    def forward(self, x: Tensor) -> Tensor:
        return self.norm(self.conv(x)).mean((2, 3))


def test_a_network_that_mixes_pictures_is_named(capsys: pytest.CaptureFixture[str]) -> None:
    capture(Blind(True), (3, 16, 16), "net:Net")
    assert capsys.readouterr().err == ""
    capture(Blind(False), (3, 16, 16), "net:Net")
    assert "depends on the other pictures of its batch" in (said := capsys.readouterr().err)
    assert said.endswith("these batch norms keep no statistics: norm\n")


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
        "notice: net:Net: left out: what its code writes into seen, centre only in training; training uses the code of "
        "evaluation\n"
    )
    assert own.seen == 0


def limits_in_training(net: Any, x: Tensor) -> Tensor:
    if net.training:
        net.part.weight.data.clamp_(-0.1, 0.1)
    return net.part(x)


def test_parameters_that_training_writes_into_are_named_and_kept(capsys: pytest.CaptureFixture[str]) -> None:
    own = Bare(limits_in_training, part=nn.Conv2d(6, 6, 1))
    before = own.part.weight.detach().clone()
    capture(own, (3, 16, 16), "net:Net")
    said = capsys.readouterr().err
    assert "left out: what its code writes into part.weight only in training" in said
    assert "depends on the other pictures" not in said
    assert torch.equal(own.part.weight, before)


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


class Exits(nn.Module):
    """Evaluation computes the answer of the first exit, but does not use it. `spare` never runs."""

    def __init__(self) -> None:
        super().__init__()
        self.stem, self.block = nn.Conv2d(3, 4, 3), nn.Conv2d(4, 4, 3)
        self.exits = nn.ModuleList(nn.Linear(4, 10) for _ in range(2))
        self.spare = nn.ReLU()

    def forward(self, x: Tensor) -> Tensor | tuple[Tensor, Tensor]:
        x = self.stem(x).relu()
        first = self.exits[0](x.mean((2, 3)))
        last = self.exits[1](self.block(x).mean((2, 3)))
        return (first, last) if self.training else last


def test_an_exit_that_evaluation_does_not_use_is_named(capsys: pytest.CaptureFixture[str]) -> None:
    form = capture(Exits().eval(), (3, 32, 32), "net:Exits")
    said = capsys.readouterr().err
    assert "differently in training and in evaluation: only training uses exits.0; training uses" in said
    assert form.captured.vanished == ("exits.0", "spare")
    assert {name for name, _ in form.named_parameters()} == {
        f"{name}.{leaf}" for name in ("stem", "block", "exits.1") for leaf in ("weight", "bias")
    }
    assert "exits.0.weight" in form.state_dict()
