"""A network whose code draws numbers outside its state_dict, or uses parameters that it does not hold, is refused."""

from __future__ import annotations

import random
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from engine.checkpoint.description import Description
from engine.errors import UserError
from engine.numerics import trials
from models import files, forms
from models.check import Misdeclared
from models.graph.capture import again
from models.graph.capture.form import capture
from tests.tools import cases
from tests.tools.odd_networks import Bare

PICTURE = (3, 16, 16)


@pytest.fixture(autouse=True)
def seeded() -> None:
    torch.manual_seed(0)
    random.seed(0)
    np.random.seed(0)


def attribute(draw: Callable[[], Tensor]) -> nn.Module:
    """Return a network with a tensor that is neither a parameter nor a buffer."""
    made = Bare(lambda net, x: x * net.part.value.view(-1, 1, 1))
    object.__setattr__(made, "part", SimpleNamespace(value=draw()))
    return made


def buffer(draw: Callable[[], Tensor], persistent: bool) -> nn.Module:
    made = Bare(lambda net, x: x * net.scale.view(-1, 1, 1))
    made.register_buffer("scale", draw(), persistent=persistent)
    return made


def permuted() -> nn.Module:
    order = torch.randperm(6).tolist()
    return Bare(lambda net, x: x[:, order])


def scaled() -> nn.Module:
    factor = random.random()
    return Bare(lambda net, x: x * factor)


def sloped() -> nn.Module:
    return Bare(lambda net, x: net.act(x), act=nn.LeakyReLU(float(np.random.rand())))


def deep() -> nn.Module:
    count = int(torch.randint(2, 200, ()))
    return Bare(lambda net, x: x.flatten(2)[:, :, :count, None])


@pytest.mark.parametrize(
    ("make", "named"),
    [
        (lambda: attribute(lambda: torch.randn(6)), "keeps them: "),
        (lambda: buffer(lambda: torch.randn(6), False), "keeps them: scale"),
        (permuted, "odd_networks.py"),
        (scaled, "odd_networks.py"),
        (sloped, "odd_networks.py"),
        (deep, "odd_networks.py"),
    ],
    ids=["attribute", "buffer", "list", "number", "setting", "shape"],
)
def test_numbers_that_no_file_keeps_are_refused(make: Callable[[], nn.Module], named: str) -> None:
    form = capture(make(), PICTURE, "net:Net")
    with pytest.raises(Misdeclared, match="each time it is built") as refused:
        again.check(form, make, "net:Net")
    assert named in str(refused.value)
    assert "register_buffer" in refused.value.hint


@pytest.mark.parametrize(
    "make",
    [
        lambda: attribute(lambda: torch.arange(6.0)),
        lambda: buffer(lambda: torch.arange(6.0), False),
        lambda: buffer(lambda: torch.randn(6), True),
        lambda: buffer(lambda: torch.full((6,), torch.nan), False),
    ],
    ids=["attribute", "buffer", "held", "NaN"],
)
def test_fixed_numbers_and_those_of_the_state_dict_pass(make: Callable[[], nn.Module]) -> None:
    before = torch.random.get_rng_state(), random.getstate(), np.random.get_state()[1].copy()
    form = capture(make(), PICTURE, "net:Net")
    torch.random.set_rng_state(before[0])
    again.check(form, make, "net:Net")
    assert torch.equal(torch.random.get_rng_state(), before[0])
    assert random.getstate() == before[1]
    assert (np.random.get_state()[1] == before[2]).all()


class Cached(nn.Module):
    """A grid that the first run computes and keeps, as detectors do."""

    def __init__(self) -> None:
        super().__init__()
        self.body, self.grid = cases.conv_bn(3, 6), None

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        x = self.body(x)
        if self.grid is None or self.grid.shape[-1] != x.shape[-1]:
            self.grid = torch.linspace(0, 1, x.shape[-1], device=x.device)
        return (x * (1 + self.grid)).mean((2, 3))


class Regridded(Cached):
    """The same with the grid in a buffer, which a run of another size replaces."""

    def __init__(self) -> None:
        super().__init__()
        del self.grid
        self.register_buffer("grid", torch.zeros(1), persistent=False)


def test_a_buffer_that_a_run_replaces_is_restored_whole() -> None:
    made = Regridded().eval()
    with trials.kept(made):
        before, answer = made.grid, made(torch.randn(2, *PICTURE))
        grid = made.grid
        assert grid.max() == 1
    assert made.grid is before
    assert grid.max() == 1  # the grid of the run is not written over
    assert answer.isfinite().all()


class Biased(nn.Module):
    """Values of parameters that evaluation computes once, as LeViT's and EfficientFormer's attention does."""

    def __init__(self) -> None:
        super().__init__()
        self.body, self.bias, self.known = cases.conv_bn(3, 6), nn.Parameter(torch.randn(6)), {}

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        if self.training:
            self.known.clear()
        if "bias" not in self.known:
            self.known["bias"] = self.bias[[5, 4, 3, 2, 1, 0]]
        return (self.body(x) * self.known["bias"][:, None, None]).mean((2, 3))


def test_values_of_parameters_that_evaluation_keeps_are_trained() -> None:
    made = Biased()
    form = capture(made, PICTURE, "net:Net")
    assert made.known == {}
    form.train()(torch.randn(2, *PICTURE)).sum().backward()
    assert made.bias.grad.abs().min() > 0


def test_a_network_may_keep_what_it_computes_first() -> None:
    form = capture(Cached(), PICTURE, "net:Net")
    again.check(form, Cached, "net:Net")
    x = torch.randn(2, *PICTURE)
    assert not torch.equal(form(x), Cached().eval()(x))  # other weights
    own = Cached()
    own.load_state_dict(form.state_dict())
    assert torch.equal(form(x), own.eval()(x))


NET = """
import torch
from torch import nn

class Net(nn.Module):
    def __init__(self, classes=10):
        super().__init__()
        self.conv, self.head = nn.Conv2d(3, 8, 3), nn.Linear(8, classes)
        self.factors = torch.{draw}(8)

    def forward(self, x):
        return self.head(self.conv(x).mean((2, 3)) * self.factors)
"""


def test_both_doors_for_new_weights_check_it(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Fresh networks and state_dicts are checked; the network of a checkpoint was checked when it was made."""
    monkeypatch.chdir(tmp_path)
    for draw in ("rand", "arange"):
        Path(f"{draw}.py").write_text(NET.format(draw=draw))
    with pytest.raises(Misdeclared, match="keeps them: factors"):
        forms.build("rand.py:Net", side=8)
    torch.save(forms.build("arange.py:Net", side=8).state_dict(), "w.pth")
    for draw in ("rand", "arange"):
        arch = f"{draw}.py:Net"
        described = Description(arch=arch, classes=10, image_size=8)
        if draw == "arange":
            files.open(Path("w.pth"), arch, described)
        else:
            with pytest.raises(UserError, match="keeps them: factors"):
                files.open(Path("w.pth"), arch, described)
