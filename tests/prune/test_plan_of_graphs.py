"""The pruning plan for graphs: families, candidate widths, and exact cuts. test_plan.py tests its rule."""

from __future__ import annotations

from functools import cache
from itertools import product

import pytest
import torch
from torch import nn

from engine.errors import UserError
from models.graph.surgery.narrow import masked, narrowed
from prune import plan as planning, report
from prune.families import families, scores
from prune.widths import Subject, candidates
from tests.tools import cases
from tests.tools.planned import tried, with_scales


def test_families_count_what_goes_together_once() -> None:
    network = tried(with_scales(cases.Residual(), 0))
    found = families(network.found, scores(network.form, network.found))
    assert [(family.name, len(family.classes), family.free) for family in found] == [
        ("stem.0", 16, True), ("c1", 24, True), ("short.0", 32, True),
    ]  # fmt: skip
    network = tried(with_scales(cases.ShuffleUnits(), 0))
    found = families(network.found, scores(network.form, network.found))
    assert (found[0].name, len(found[0].classes)) == (
        "stem.0",
        80,
    )  # 32, and 16 of each unit that is shuffled with them
    assert found[0].step == 5  # a sixteenth of each
    assert not found[0].free


def test_widths_are_tried_from_the_nearest_on() -> None:
    network = tried(with_scales(cases.Residual(), 0))
    (stem, *_) = families(network.found, scores(network.form, network.found))
    assert list(candidates(stem, 5, 0, 1))[:5] == [5, 6, 4, 7, 3]
    assert list(candidates(stem, 5, 0, 4)) == [4, 8, 12, 16, 16]
    assert next(iter(candidates(stem, 0, 0, 1))) == 2  # one channel looks like a value for all channels
    assert list(candidates(stem, 3, 0, 32)) == [16]  # no multiple fits, so it stays whole


@cache
def network_of(name: str) -> tuple[nn.Module, Subject]:
    """Return a case in float64, as its code builds it and ready for a plan; tests must not change it."""
    torch.manual_seed(0)
    model = with_scales(getattr(cases, name)(), 1).double()
    return model, tried(model)


CUT = product(("Residual", "ShuffleUnits", "Concatenation", "mobilenet_v1"), ((0.3, 1), (0.5, 8), (0.9, 1)))


@pytest.mark.parametrize(
    ("name", "percent", "base"),
    [  # planning a network with shuffles takes seconds
        pytest.param(name, *asked, marks=pytest.mark.slow if name == "ShuffleUnits" and asked != (0.5, 8) else ())
        for name, asked in CUT
    ],
)
def test_what_is_planned_can_be_cut_exactly(name: str, percent: float, base: int) -> None:
    model, network = network_of(name)
    found = planning.plan(network, percent, base)
    assert all(width % base == 0 or name in found.whole for name, width in zip(found.names, found.widths, strict=True))
    small = narrowed(model, network.form, network.found, found.dropped, "net")
    x = torch.randn(2, 3, 32, 32, dtype=torch.float64)
    with torch.no_grad():
        expected, cut = masked(network.form, network.found, found.dropped)(x), small(x)
    assert (expected - cut).abs().max() <= 1e-10 * expected.abs().max()


class Means(nn.Module):
    """Means of 64 parts, a number in the code, before channels that are split into any two halves."""

    def __init__(self) -> None:
        super().__init__()
        self.first, self.second, self.head = cases.conv_bn(3, 128), cases.conv_bn(64, 16), cases.Head(16, 10)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        left, right = self.first(x).chunk(2, 1)
        left, right = self.second(torch.cat([left, 2 * right], 1).unflatten(1, (64, -1)).mean(2)).chunk(2, 1)
        return self.head(torch.cat([left, 2 * right], 1))


def test_a_family_without_a_legal_width_leaves_the_others_theirs() -> None:
    torch.manual_seed(0)
    model = with_scales(Means(), 1).double()
    network = tried(model, 8)
    found = planning.plan(network, 0.5)
    assert (found.names, found.widths[0], found.stuck) == (("first.0", "second.0"), 64, ("first.0",))
    assert found.widths[1] < 16
    small = narrowed(model, network.form, network.found, found.dropped, "net")
    x = torch.randn(2, 3, 8, 8, dtype=torch.float64)
    torch.testing.assert_close(small(x), masked(network.form, network.found, found.dropped)(x), rtol=0, atol=1e-12)


def test_percent_0_drops_nothing_and_others_are_refused() -> None:
    network = tried(with_scales(cases.Residual(), 0))
    assert planning.plan(network, 0).dropped == frozenset()
    for percent, base in ((1, 1), (-0.1, 1), (0.5, 0)):
        with pytest.raises(ValueError):
            planning.plan(network, percent, base)
    bare = nn.Sequential(nn.Conv2d(3, 8, 1), nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(8, 2))
    with pytest.raises(UserError, match="none of its channels can be cut") as refused:
        planning.plan(tried(bare), 0.5)
    assert "--importance l1" in refused.value.hint
    assert sum(planning.plan(tried(bare), 0.5, importance="l1").widths) == 4


def test_a_family_names_all_layers_that_make_its_channels() -> None:
    """The table of widths names the first layer that writes to a stream, and the number of other layers."""
    network = tried(with_scales(cases.Residual(), 0))
    found = families(network.found, scores(network.form, network.found))
    assert [(family.name, family.others) for family in found] == [("stem.0", ("c2",)), ("c1", ()), ("short.0", ("c3",))]
    lines = report.widths(planning.plan(network, 0.5), ())
    assert [line.split()[:2] for line in lines[1:4]] == [["stem.0", "(+1)"], ["c1", "24"], ["short.0", "(+1)"]]
