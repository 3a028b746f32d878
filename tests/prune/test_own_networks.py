"""A network of the user's that is not what it declares is refused in two lines, before it is trained; a true one passes."""

from __future__ import annotations

import sys
from collections.abc import Callable, Sequence
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from torch import Tensor, nn

import models
from engine.checkpoint import format as checkpoint
from engine.checkpoint.format import Metrics
from engine.checkpoint.history import Train
from engine.checkpoint.provenance import Origin
from engine.data.info import DataInfo
from engine.errors import USAGE, UserError
from engine.tasks.classification import CLASSIFICATION
from models.blocks import ConvBNAct, GlobalMean
from models.channels import ChannelGroup, Consumer
from prune import proof
from prune.trial import check_for_pruning
from tests.conftest import SMALL, assert_refused
from tests.tools import residual

A, B = ChannelGroup("a.bn", "a.conv", (Consumer("b.conv"),)), ChannelGroup("b.bn", "b.conv", (Consumer("head"),))


class Net(nn.Module):
    """Two blocks and a linear layer, truly declared; the functions below spoil it."""

    def __init__(self, cfg: Sequence[int], classes: int, groups: Sequence[ChannelGroup] = (A, B)) -> None:
        super().__init__()
        self.cfg, self.ends, self.groups = list(cfg), ("a.conv", "head"), list(groups)
        self.a, self.b = ConvBNAct(3, cfg[0], 3), ConvBNAct(cfg[0], cfg[1], 3)
        self.skip: nn.Module | None = None
        self.mean, self.head = GlobalMean(), nn.Linear(cfg[1], classes)

    def forward(self, x: Tensor) -> Any:
        x = self.a(x)
        return self.head(self.mean(self.b(x) if self.skip is None else self.b(x) + self.skip(x)))

    def channel_groups(self) -> list[ChannelGroup]:
        return self.groups


def true(cfg: Sequence[int] | None = None, classes: int = 10) -> Net:
    return Net(cfg or (8, 8), classes)


def groups(*declared: Any) -> Callable[..., Net]:
    return lambda cfg=None, classes=10: Net(cfg or (8, 8), classes, declared)


def spoilt(**parts: Any) -> Callable[..., Net]:
    """With these attributes; functions make them of the widths."""

    def function(cfg: Sequence[int] | None = None, classes: int = 10) -> Net:
        net = true(cfg, classes)
        for path, part in parts.items():
            owner, _, name = path.rpartition("__")
            setattr(net.get_submodule(owner), name, part(net.cfg) if callable(part) else part)
        return net

    return function


class Both(Net):
    def forward(self, x: Tensor) -> Any:
        return super().forward(x), x


def no_cfg(classes: int = 10) -> Net:
    return true((8, 8), classes)


def needs_cfg(cfg: Sequence[int], classes: int = 10) -> Net:
    return Net(cfg, classes)


def both(cfg: Sequence[int] | None = None, classes: int = 10) -> Net:
    return Both(cfg or (8, 8), classes)


def deaf(cfg: Sequence[int] | None = None, classes: int = 10) -> Net:
    return Net((8, 8), classes)


def lying(cfg: Sequence[int] | None = None, classes: int = 10) -> Net:
    net = Net((8, 8), classes)
    net.cfg = list(cfg or (8, 8))
    return net


def choosy(cfg: Sequence[int] | None = None, classes: int = 10) -> Net:
    if any(width % 8 for width in cfg or ()):
        raise ValueError("widths have to be multiples of 8")
    return true(cfg, classes)


def fixed_size(cfg: Sequence[int] | None = None, classes: int = 10) -> Net:
    net = Net((cfg[0] if cfg else 8, 4), classes, [A])
    net.cfg, net.mean, net.head = net.cfg[:1], nn.Flatten(), nn.Linear(64 * 4, classes)
    return net


misnamed = groups(ChannelGroup("a.bnn", "a.conv", (Consumer("b.conv"),)), B)
no_tuple = groups(ChannelGroup("a.bn", "a.conv", Consumer("b.conv")), B)  # type: ignore[arg-type]
one_group, twice, none = groups(A), groups(A, A), groups()
swapped = groups(B, A)
wrong_reader = groups(ChannelGroup("a.bn", "a.conv", (Consumer("head"),)), B)
not_a_norm = groups(ChannelGroup("a.act", "a.conv", (Consumer("b.conv"),)), B)
wrong_ends = spoilt(ends=("first", "head"))
one_end = spoilt(ends="head")
flat = spoilt(head=lambda cfg: nn.Linear(64 * cfg[1], 10))
gray = spoilt(a__conv=lambda cfg: nn.Conv2d(1, cfg[0], 3, padding=1))
lazy = spoilt(skip=lambda cfg: nn.LazyConv2d(cfg[1], 1))
five = spoilt(head=lambda cfg: nn.Linear(cfg[1], 5))
sigmoid = spoilt(a__act=lambda cfg: nn.Sigmoid())
forgotten = spoilt(skip=lambda cfg: nn.Conv2d(cfg[0], cfg[1], 1))


def arch(name: str) -> str:
    return f"{__name__}:{name}"


@pytest.mark.parametrize(
    ("name", "text"),
    [
        ("no_cfg", "cannot be called with cfg, classes"),
        ("needs_cfg", r"test_own_networks\.py:\d+: TypeError"),
        ("misnamed", r"no layer is called 'a\.bnn'; did you mean 'a\.bn'"),
        ("no_tuple", "not a tuple of Consumer"),
        ("not_a_norm", "a.act is a ReLU, not a BatchNorm2d"),
        ("one_group", "1 channel groups and 2 widths"),
        ("twice", "a.bn is the gate of two channel groups"),
        ("wrong_reader", "head reads two channel groups"),
        ("wrong_ends", "ends: no layer is called 'first'"),
        ("one_end", "not two names"),
        ("flat", "consumer head of gate b.bn reads 512 channels, the gate has 8; end in models.blocks.GlobalMean"),
        ("lazy", "skip.weight is lazy"),
        ("both", "forward gives a tuple"),
        ("five", r"forward gives \(2, 5\) for 2 pictures and 10 classes"),
    ],
)
def test_what_is_declared_wrongly_is_not_built(name: str, text: str) -> None:
    with pytest.raises(UserError, match=text) as fault:
        models.build(arch(name))
    assert fault.value.code == USAGE


@pytest.mark.parametrize("name", ["deaf", "lying", "swapped"])
def test_widths_that_are_not_those_of_cfg_are_refused(name: str) -> None:
    with pytest.raises(UserError, match=r"asked for cfg \[8, 4\]|has 8 channels, cfg\[1\] = 4|cfg\[0\] = 8"):
        models.build(arch(name), [8, 4])


@pytest.mark.parametrize(
    ("name", "text"),
    [
        ("gray", "expected input.* to have 1 channels"),
        ("forgotten", r"no group names skip as a consumer; skip\.weight is"),
        ("sigmoid", r"without some channels of a\.bn it computes something else"),
        ("deaf", "the function has to use its cfg"),
        ("lying", r"gate a\.bn has 8 channels, cfg\[0\] = 2"),
        ("swapped", r"gate b\.bn has 4 channels, cfg\[0\] = 2"),
        ("none", "declares no channel groups"),
    ],
)
def test_what_only_surgery_shows_is_found_before_training(name: str, text: str) -> None:
    with pytest.raises(UserError, match=text) as fault:
        check_for_pruning(models.build(arch(name)), arch(name), {"classes": 10}, 8, sparse=True)
    assert fault.value.code == USAGE


@pytest.mark.parametrize("name", [arch("true"), arch("choosy"), arch("fixed_size"), residual.ARCH])
def test_true_networks_pass_and_no_random_number_is_used(name: str) -> None:
    torch.manual_seed(3)
    plain = {**globals(), "residual": residual.residual}[name.rpartition(":")[2]]()
    after = torch.get_rng_state()
    torch.manual_seed(3)
    model = models.build(name).train()
    check_for_pruning(model, name, {"classes": 10}, 8, sparse=True)
    assert torch.equal(torch.get_rng_state(), after)
    assert all(m.training for m in model.modules())
    assert all(map(torch.equal, model.state_dict().values(), plain.state_dict().values()))


def test_without_groups_it_may_be_trained_and_quantized() -> None:
    model = models.build(arch("none"))
    check_for_pruning(model, arch("none"), {"classes": 10}, 8, sparse=False)


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("def net(:\n    pass\n", ("broken_net.py:1: SyntaxError",)),
        ("x = 1\nimport not_there_at_all\n", ("broken_net.py:2: No module named 'not_there_at_all'",)),
        ("x = 1\n\n1 / 0\n", ("broken_net.py:3: ZeroDivisionError",)),
    ],
)
def test_a_module_that_cannot_be_imported_is_named_with_its_line(
    text: str, words: tuple[str, ...], command: Callable[..., SimpleNamespace], workplace: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:  # fmt: skip
    Path("broken_net.py").write_text(text)
    monkeypatch.syspath_prepend(workplace)
    assert_refused(command("prune.train", "--arch", "broken_net:net", *SMALL), USAGE, *words)


def saved(name: str, path: str) -> None:
    """A file of such a network, its scales as after sparse training."""
    torch.manual_seed(0)
    net = globals()[name]()
    for block in (net.a, net.b):
        block.bn.weight.data.uniform_(0.1, 1)
    net.head.weight.data.mul_(0.01)  # with this bias it gives one class to every picture, as after pruning many do
    net.head.bias.data[3] = 9
    info = DataInfo("digits", "digits", 10, 8, (0.5,) * 3, (0.25,) * 3)
    origin = Origin(("prune.train", "-sr"), 1)
    content = checkpoint.make(net, arch(name), {"classes": 10}, info, Metrics(1.0), (Train(),), origin)
    checkpoint.save(Path(path), content)


def test_pruning_compares_logits_not_answers_alone(
    command: Callable[..., SimpleNamespace], monkeypatch: pytest.MonkeyPatch
) -> None:
    flags = ("--percent", "0.5", "--cpu", "--model", "own.pth", "--arch")
    saved("sigmoid", "own.pth")
    with monkeypatch.context() as patch:
        words = command("prune.normal_regular", *flags, arch("sigmoid")).err
        assert "without some channels of a.bn it computes something else" in words
        patch.setattr("prune.trial.trial_prune", lambda *_: None)  # what a trial with random scales lets pass
        result = command("prune.normal_regular", *flags, arch("sigmoid"))
    words = result.err.splitlines()[-2:]
    assert (result.code, result.out) == (USAGE, "")
    assert words[0] == "error: the declared channel groups do not describe the network: surgery changed its logits"
    assert words[1].startswith("hint: ")
    assert not list(Path().glob("models_save/*prune*"))
    saved("true", "own.pth")
    assert command("prune.normal_regular", *flags, arch("true")).code == 0


def test_surgery_that_goes_wrong_on_a_network_of_ours_is_a_bug() -> None:
    data = SimpleNamespace(test=SimpleNamespace(batches=lambda size: iter([(torch.ones(size, 3), None)])))
    pair = [nn.Linear(3, 2).double(), nn.Linear(3, 2).double()]
    experiment = SimpleNamespace(task=CLASSIFICATION)
    with pytest.raises(AssertionError, match="surgery changed logits"):
        proof.prove(experiment, data, pair, 0, own=False)
    proof.prove(experiment, data, [pair[0], pair[0]], 0, own=False)


def test_tensors_of_the_module_are_real(workplace: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Counting parameters imports the module first; on the meta device its own tensors would stay without values."""
    text = "import torch\nfrom tests.prune.test_own_networks import true as net\nSCALE = torch.tensor([2.0])\n"
    Path("with_scale.py").write_text(text)
    monkeypatch.syspath_prepend(workplace)
    assert models.size("with_scale:net") == sum(p.numel() for p in true().parameters())
    assert sys.modules["with_scale"].SCALE.item() == 2
