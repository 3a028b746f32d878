"""--max_per_layer, and plans that drop nothing: the request, the result, and the message about the difference."""

from __future__ import annotations

import json
import random
from math import floor

import pytest
import torch
from torch import nn

from engine.errors import USAGE, UserError
from models.graph.capture.form import capture
from prune import plan as planning, report
from prune.computed import computed_channels
from prune.families import families, rows, scores, stays
from prune.spare import spared
from prune.surgery import Surgery
from prune.widths import candidates
from tests.conftest import SMALL, assert_refused
from tests.tools import cases
from tests.tools.planned import tried, with_scales

OWN = ("--arch", "tests.tools.cases:Residual")
FULL = {"stem.0": 16, "c1": 24, "short.0": 32}


def test_no_layer_loses_more_than_the_limit_after_rounding() -> None:
    """Compared with a plan by hand: without rounding each layer loses channels by score, at most the limit's share."""
    draw = random.Random(0)
    network = tried(cases.Residual())
    for seed, limit in enumerate((0.1, 0.5)):
        with_scales(network.form, seed)
        percent = draw.choice([0.3, 0.5, 0.8])
        free = planning.plan(network, percent)
        found = planning.plan(network, percent, limit=limit)
        least = [size - floor(limit * size) for size in FULL.values()]
        assert found.widths == tuple(max(pair) for pair in zip(free.widths, least, strict=True))
        limited = [n for n, w, at_least in zip(FULL, free.widths, least, strict=True) if w < at_least]
        assert list(found.limited) == limited
        assert len(found.dropped) == sum(FULL.values()) - sum(found.widths)
        rounded = planning.plan(network, percent, 8, limit=limit).widths
        assert all(w % 8 == 0 and w >= low for w, low in zip(rounded, least, strict=True))


def test_widths_below_the_limit_are_not_tried() -> None:
    network = tried(with_scales(cases.Residual(), 0))
    (stem, *_) = families(network.found, scores(network.form, network.found))
    assert list(candidates(stem, 5, 10, 4)) == [12, 16, 16]
    assert list(candidates(stem, 5, 13, 8)) == [16, 16]
    shuffled = tried(with_scales(cases.ShuffleUnits(), 0))
    (first, *_) = families(shuffled.found, scores(shuffled.form, shuffled.found))
    assert list(candidates(first, 0, 64, 1)) == [65, 70, 75, 80, 80]  # multiples of the shuffle's groups


@pytest.mark.parametrize("limit", [0, -0.1, 1.1])
def test_other_limits_are_refused(limit: float) -> None:
    with pytest.raises(ValueError, match="limit"):
        planning.plan(tried(with_scales(cases.Residual(), 0)), 0.5, limit=limit)


@pytest.mark.parametrize(
    ("percent", "base", "limit", "why"),
    [
        (0.0, 1, 1, "--percent is 0"),
        (0.01, 1, 1, "--percent 0.01 of 72 channels is less than one"),
        (0.05, 8, 1, "every layer's nearest multiple of 8 is its present width"),
        (0.5, 1, 0.03, "--max_per_layer keeps all channels of 3 layers"),
        (0.9, 64, 1, "no multiple of 64 fits 3 layers"),
    ],
)
def test_a_plan_that_drops_nothing_says_why(
    percent: float, base: int, limit: float, why: str, capsys: pytest.CaptureFixture[str]
) -> None:
    network = tried(with_scales(cases.Residual(), 0))
    chosen = planning.plan(network, percent, base, limit=limit)
    assert not chosen.dropped
    report.say_what_differs(chosen, strict=True)
    assert f"notice: the plan drops nothing: {why}\n" in capsys.readouterr().err


def test_a_plan_that_drops_something_does_not(capsys: pytest.CaptureFixture[str]) -> None:
    report.say_what_differs(planning.plan(tried(with_scales(cases.Residual(), 0)), 0.5), strict=True)
    assert "nothing" not in capsys.readouterr().err


def test_what_stays_is_told_by_its_reason() -> None:
    network = tried(cases.SqueezeExcite())
    reasons = stays(network.found, scores(network.form, network.found), "bn")
    counted = {why: [*reasons.values()].count(why) for why in reasons.values()}
    unscored = "no batch norm scales them (--importance l1 goes by weights)"
    assert counted == {unscored: 4, "the network's answer": 10}  # the bottleneck of the gate
    assert set(stays(network.found, scores(network.form, network.found, "l1"), "l1").values()) == {
        "the network's answer"
    }
    units = tried(cases.ShuffleUnits())
    open_ = spared(units.form, units.found, ["units.1.2.0"])
    told = [*stays(open_, scores(units.form, open_), "bn").values()]
    assert told.count("spared") == 16
    assert told.count("they go together with channels that stay") == 32 + 2 * 16  # channels shuffled with them


def weighted() -> torch.nn.Module:
    """A layer with a normalised weight, 16 channels, and a plain one, 24."""
    norm = torch.nn.utils.parametrizations.weight_norm
    first = torch.nn.Sequential(norm(torch.nn.Conv2d(3, 16, 3, bias=False)), torch.nn.BatchNorm2d(16), torch.nn.ReLU())
    return torch.nn.Sequential(first, cases.conv_bn(16, 24), cases.Head(24, 10))


def test_channels_of_computed_weights_are_counted() -> None:
    network = tried(with_scales(weighted(), 0))
    chosen = planning.plan(network, 0.5)
    reasons = [*chosen.stays.values()]
    assert reasons.count("the network's answer") == 10
    assert computed_channels(network.form) == {"0.0 computes the weights that make them": 16}
    assert chosen.computed == 16
    assert any(line.startswith("channels    24 of 50 can be cut; 12 go, 24.00 %") for line in report.widths(chosen, ()))


class Cosine(torch.nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.body, self.weight = cases.conv_bn(3, 16), torch.nn.Parameter(torch.randn(10, 16))

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        x = self.body(x).mean((2, 3))
        return 10 * torch.nn.functional.linear(x, torch.nn.functional.normalize(self.weight))


def test_a_last_layer_whose_weight_is_computed_is_no_news() -> None:
    network = tried(Cosine())
    assert computed_channels(network.form) == {}


def test_a_layer_of_two_channels_says_why_it_stays(capsys: pytest.CaptureFixture[str]) -> None:
    network = tried(torch.nn.Sequential(cases.conv_bn(3, 2), cases.conv_bn(2, 2), cases.Head(2, 10)))
    chosen = planning.plan(network, 0.5)
    report.say_what_differs(chosen, strict=False)
    said = capsys.readouterr().err
    assert "percent 0.5 would leave fewer than 2 channels in " in said
    assert "the plan drops nothing: 1 layer would keep fewer than 2 channels\n" in said
    with pytest.raises(UserError, match="fewer than 2 channels"):
        report.say_what_differs(chosen, strict=True)


def test_modules_that_evaluation_does_not_run_keep_their_size(capsys: pytest.CaptureFixture[str]) -> None:
    form = capture(cases.AuxiliaryOutputs(), (3, 32, 32), "net:Net")
    capsys.readouterr()
    report.say_what_keeps_its_size(form)
    assert capsys.readouterr().err.startswith("notice: not run in evaluation, so sizes stay: aux.fc;")


class TwoHeads(cases.Residual):
    def __init__(self) -> None:
        super().__init__()
        self.other = cases.Head(16, 10)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return super().forward(x) + self.other(self.stem(x))


def test_the_outputs_of_one_last_layer_are_no_news() -> None:
    """A residual network that returns its stream may surprise: its answer comes of several layers."""
    for model, told in ((cases.Residual(), set[str]()), (TwoHeads(), {"the network's answer"})):
        network = tried(model)
        surgery = Surgery(network.form, model, network.found, network.found, "net", "bn", 1)
        assert {*surgery.stays().values()} == told


def test_one_channel_is_not_some_channels(capsys: pytest.CaptureFixture[str]) -> None:
    report.say_what_stays({1: "spared", 2: "grouped", 3: "grouped"}, {3: 5}, {})
    assert capsys.readouterr().err == (
        "notice: 6 channels cannot be cut: grouped\nnotice: 1 channel cannot be cut: spared\n"
    )


def test_all_that_is_asked_and_done_is_printed(command) -> None:
    command("prune.train", "-sr", "--s", "0.01", *OWN, *SMALL)
    words = ("prune.normal_regular", "--percent", "0.9", *OWN, "--cpu", "--overwrite")
    done = command(*words, "--max_per_layer", "0.25")
    assert done.code == 0, done.err
    assert "percent     requested 90.00 %, achieved 25.00 % of the channels that can be cut\n" in done.out
    assert "channels    72 of 82 can be cut; 18 go, 21.95 % of all\n" in done.out
    assert "notice: --max_per_layer kept channels with low scores in stem.0, c1, short.0\n" in done.err
    assert "cannot be cut" not in done.err  # its last layer alone, whose outputs never can
    told = json.loads(command(*words, "--max_per_layer", "0.25", "--json").out)
    assert told["layers"] == {"stem.0": [16, 12], "c1": [24, 18], "short.0": [32, 24]}
    nothing = command(*words, "--percent", "0.001")
    assert nothing.code == 0
    assert "notice: the plan drops nothing: --percent 0.001 of 72 channels is less than one" in nothing.err
    for wrong in ("0", "1.5", "x"):
        assert_refused(command(*words, "--max_per_layer", wrong), USAGE, "is not a number above 0 and at most 1")


def test_a_share_below_one_channel_is_said_to_drop_nothing(refined) -> None:
    same = refined("prune.normal_regular", "--percent", "0.01", "--cpu", "--overwrite")
    assert "notice: the plan drops nothing: --percent 0.01 of 64 channels is less than one" in same.err


def test_a_long_table_leaves_out_those_that_lose_least() -> None:
    names = tuple(f"layer{n}" for n in range(60))
    widths = tuple(10 - n % 10 for n in range(60))
    chosen = planning.PrunePlan(names, (10,) * 60, widths, (1,) * 60, frozenset(range(270)), 0.5, 1, {1: "spared"})
    lines = report.widths(chosen, ())
    assert len(lines) == 1 + report.ROWS // 2 + 3
    assert lines[1].split() == ["layer6", "10", "4"]
    assert lines[-3] == "... and 40 layers with smaller losses: --json lists all"
    assert lines[-1] == "channels    600 of 601 can be cut; 270 go, 44.93 % of all"


def test_channels_that_an_operation_mixes_are_all_counted(capsys: pytest.CaptureFixture[str]) -> None:
    """Attention by a convolution along the channels (ECA, arXiv 1910.03151)."""

    class Attention(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.stem, self.line = nn.Conv2d(3, 12, 3), nn.Conv1d(1, 1, 3, padding=1)
            self.inner, self.norm, self.head = nn.Conv2d(12, 8, 1), nn.BatchNorm2d(8), nn.Linear(8, 10)

        def forward(self, x: torch.Tensor) -> torch.Tensor:
            x = self.stem(x)
            x = x * self.line(x.mean((2, 3))[:, None]).sigmoid()[:, 0, :, None, None]
            return self.head(self.norm(self.inner(x)).mean((2, 3)))

    network = tried(Attention().eval())
    surgery = Surgery(network.form, network.model, network.found, network.found, "net", "bn", 1)
    report.say_what_stays(surgery.stays(), rows(network.found), {})
    assert capsys.readouterr().err == "notice: 12 channels cannot be cut: mixed with other axes: line\n"
