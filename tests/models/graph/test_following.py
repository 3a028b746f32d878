"""Code that keeps widths in attributes: they follow the layers of a narrower copy, which is exact and reopened as stored."""

from __future__ import annotations

from collections.abc import Callable

import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from models.graph.capture.form import capture
from models.graph.channels.classes import channels
from models.graph.surgery.narrow import masked, narrowed
from models.graph.surgery.stored import as_stored
from prune import plan as planning
from prune.plan import PrunePlan
from prune.widths import Subject
from tests.tools.cases import conv_bn

PICTURE = (3, 8, 8)


class Splits(nn.Module):
    """As a block of Res2Net (arXiv 1904.01169): parts of one width, of which each layer also reads the one before."""

    def __init__(self, inner: int, width: int) -> None:
        super().__init__()
        self.stride, self.width = 1, width
        self.first, self.last = conv_bn(inner, 3 * width), conv_bn(3 * width, inner)
        self.parts = nn.ModuleList(conv_bn(width, width) for _ in range(2))

    def forward(self, x: Tensor) -> Tensor:
        each = torch.split(self.first(x), self.width, 1)
        found = [each[0]]
        for part, y in zip(self.parts, each[1:], strict=True):
            found.append(part(y + found[-1]))
        return F.relu(x + self.last(torch.cat(found, 1)))


class Larger(nn.Module):
    """The larger half, as LightCNN (arXiv 1511.02683): the attribute is half of the layer's width."""

    def __init__(self, inner: int, width: int) -> None:
        super().__init__()
        self.width, self.filter = width, conv_bn(inner, 2 * width)

    def forward(self, x: Tensor) -> Tensor:
        one, other = torch.split(self.filter(x), self.width, 1)
        return torch.max(one, other)


class Listed(nn.Module):
    """Branches with a list of widths."""

    def __init__(self, inner: int, *widths: int) -> None:
        super().__init__()
        self.widths = [*widths]
        self.stem = conv_bn(inner, sum(widths))
        self.parts = nn.ModuleList(conv_bn(width, width) for width in widths)

    def forward(self, x: Tensor) -> Tensor:
        each = torch.split(self.stem(x), self.widths, 1)
        return torch.cat([part(y) for part, y in zip(self.parts, each, strict=True)], 1)


class Flat(nn.Module):
    """A count of features in a view."""

    def __init__(self, inner: int, width: int) -> None:
        super().__init__()
        self.conv, self.features = conv_bn(inner, width), width
        self.fc = nn.Linear(width, 6)

    def forward(self, x: Tensor) -> Tensor:
        return self.fc(self.conv(x).mean((2, 3)).view(-1, self.features))[:, :, None, None]


class Scaled(Splits):
    """The width is also a factor, which must stay."""

    def forward(self, x: Tensor) -> Tensor:
        return super().forward(x) / self.width


def net(*blocks: nn.Module, behind: int) -> nn.Module:
    torch.manual_seed(0)
    made = nn.Sequential(conv_bn(3, 8), *blocks, nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(behind, 5))
    for norm in (each for each in made.modules() if isinstance(each, nn.BatchNorm2d)):
        nn.init.uniform_(norm.weight, 0.2, 1)
        nn.init.normal_(norm.bias, 0, 0.3)
        nn.init.normal_(norm.running_mean, 0, 0.2)
        nn.init.uniform_(norm.running_var, 0.5, 1.5)
    return made.double().eval()


FOLLOWED: dict[str, tuple[Callable[[], nn.Module], tuple[str, ...]]] = {
    "splits": (lambda: net(Splits(8, 8), Splits(8, 8), behind=8), ("Splits.width",)),  # 8 is the width of other layers, too
    "splits of two widths": (lambda: net(Splits(8, 12), Splits(8, 6), behind=8), ("Splits.width",)),
    "larger": (lambda: net(Larger(8, 12), Larger(12, 10), behind=10), ("Larger.width",)),
    "flat": (lambda: net(Flat(8, 12), behind=6), ("Flat.features",)),
    "listed": (lambda: net(Listed(8, 12, 8), behind=20), ("Listed.widths[0]", "Listed.widths[1]")),
}  # fmt: skip


def planned(model: nn.Module, name: str) -> tuple[Subject, PrunePlan]:
    form = capture(model, PICTURE, name)
    subject = Subject(model, form, channels(form), name)
    return subject, planning.plan(subject, 0.4)


@pytest.mark.parametrize("name", FOLLOWED)
def test_attributes_follow_and_the_cut_is_exact(name: str) -> None:
    make, followed = FOLLOWED[name]
    model = make()
    subject, plan = planned(model, name)
    form, found = subject.form, subject.found
    small = narrowed(model, form, found, plan.dropped, name)
    assert small.captured.followed == followed
    assert not plan.stuck
    assert plan.achieved > 0.3
    x = torch.randn(4, *PICTURE, dtype=torch.float64)
    torch.testing.assert_close(small(x), masked(form, found, plan.dropped)(x), rtol=0, atol=1e-12)
    stored = {key: tuple(tensor.shape) for key, tensor in small.state_dict().items()}
    again = capture(as_stored(model, PICTURE, name, stored).model, PICTURE, name, check=False)
    again.load_state_dict(small.state_dict())
    assert torch.equal(again(x), small(x))


def test_the_network_itself_keeps_its_attributes() -> None:
    model = FOLLOWED["splits"][0]()
    subject, plan = planned(model, "splits")
    narrowed(model, subject.form, subject.found, plan.dropped, "splits")
    assert model[1].width == 8


def test_a_width_that_the_code_computes_with_keeps_its_layer_whole() -> None:
    subject, plan = planned(net(Scaled(8, 12), behind=8), "scaled")
    assert {name for name in plan.stuck if name.startswith("1.first")}
    small = narrowed(subject.model, subject.form, subject.found, plan.dropped, "scaled")
    assert small.captured.followed == ()
    x = torch.randn(4, *PICTURE, dtype=torch.float64)
    expected = masked(subject.form, subject.found, plan.dropped)(x)
    torch.testing.assert_close(small(x), expected, rtol=0, atol=1e-12)


class Halved(Larger):
    def forward(self, x: Tensor) -> Tensor:
        one, other = torch.split(self.filter(x), self.width, 1)
        return (one + other) / self.width


def test_so_does_a_layer_whose_parts_meet_and_the_error_names_no_plan() -> None:
    subject, plan = planned(net(Halved(8, 12), Larger(12, 10), behind=10), "own.py:halved")
    assert plan.stuck == ("1.filter.0",)
    assert plan.cuttable == sum(plan.before) - plan.before[plan.names.index("1.filter.0")]
    assert plan.achieved == pytest.approx(0.4, abs=0.05)
    small = narrowed(subject.model, subject.form, subject.found, plan.dropped, "own.py:halved")
    assert small.captured.followed == ("Larger.width",)
    x = torch.randn(4, *PICTURE, dtype=torch.float64)
    expected = masked(subject.form, subject.found, plan.dropped)(x)
    torch.testing.assert_close(small(x), expected, rtol=0, atol=1e-12)


def test_the_share_is_chosen_among_layers_that_can_lose_channels() -> None:
    """The lowest scores are in a layer whose width is a number of the code."""

    class Fixed(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.conv = conv_bn(8, 16)

        def forward(self, x: Tensor) -> Tensor:
            return self.conv(x).view(-1, 16, 8, 8)

    model = net(Fixed(), conv_bn(16, 16), behind=16)
    model[1].conv[1].weight.data.fill_(0.001)
    _, plan = planned(model, "own.py:fixed")
    assert plan.stuck == ("1.conv.0",)
    widths = dict(zip(plan.names, plan.widths, strict=True))
    assert widths["1.conv.0"] == 16
    assert widths["0.0"] + widths["2.0"] == 24 - int(0.4 * 24)
