"""Shows which channels a plan keeps: the drop rule, rounding, and the widths that groups and shuffles allow."""

from __future__ import annotations

from itertools import pairwise
from math import floor, lcm

import pytest
import torch

import models
from engine.errors import BAD_CHECKPOINT, UserError
from models.blocks import ChannelShuffle
from prune.plan import Gate, nearest, plan
from prune.surgery import gates_of

PLAIN = (192, 160, 96, 192, 192, 192, 192, 192)


def gates(*scales: list[float] | torch.Tensor) -> list[Gate]:
    """Gates without groups, named a, b, c, ..."""
    return [Gate(name, torch.as_tensor(s, dtype=torch.float64)) for name, s in zip("abcdef", scales, strict=False)]


def kept(percent: float, base: int, *scales: list[float] | torch.Tensor) -> list[list[int]]:
    return [k.tolist() for k in plan(gates(*scales), percent, base).kept]


def ties(seed: int) -> list[torch.Tensor]:
    """Three gates of random widths, whose scales are small integers of both signs: most of them tie."""
    source = torch.Generator().manual_seed(seed)
    widths = torch.randint(1, 30, (3,), generator=source).tolist()
    return [torch.randint(-3, 4, (w,), generator=source).double() for w in widths]


def by_the_rule(scales: list[torch.Tensor], percent: float) -> list[list[int]]:
    """The drop rule in plain Python; an emptied layer keeps its largest channel, of equal ones the last."""
    every = sorted((abs(g), layer, i) for layer, s in enumerate(scales) for i, g in enumerate(s.tolist()))
    left = every[floor(percent * len(every) + 1e-9) :]
    chosen = [sorted(i for _, layer, i in left if layer == n) for n in range(len(scales))]
    return [c or [max(every_i for every_i in every if every_i[1] == n)[2]] for n, c in enumerate(chosen)]


@pytest.mark.parametrize(
    ("count", "legal", "expected"),
    [
        (0, [8, 16], 8),
        (11, [8, 16], 8),
        (12, [8, 16], 16),  # a tie goes up
        (13, [8, 16], 16),
        (99, [8, 16], 16),
        (5, [5], 5),
        (48, [32, 64, 96], 64),
        (128, [64, 192], 192),
        (127, [64, 192], 64),
    ],
)
def test_nearest(count, legal, expected):
    assert nearest(count, legal) == nearest(count, legal[::-1]) == expected


@pytest.mark.parametrize(
    ("percent", "total", "dropped"),
    [(0.0, 10, 0), (0.29, 100, 29), (0.57, 100, 57), (0.5, 7, 3), (0.1, 9, 0), (0.999, 3, 2), (0.3, 10, 3)],
)  # 0.29 * 100 and 0.57 * 100 are just below 29 and 57 in floating point
def test_the_floor_of_percent_times_total_goes(percent, total, dropped):
    assert kept(percent, 1, list(range(total))) == [list(range(dropped, total))]


@pytest.mark.parametrize("seed", range(20))
@pytest.mark.parametrize("percent", [0.0, 0.2, 0.5, 0.9])
def test_the_drop_rule_with_ties(seed, percent):
    scales = ties(seed)
    assert kept(percent, 1, *scales) == by_the_rule(scales, percent)


def test_ties_go_by_scale_then_layer_then_index():
    assert kept(1 / 6, 1, [1, 1, 1], [1, 1, 1]) == [[1, 2], [0, 1, 2]]
    assert kept(4 / 6, 1, [1, 1, 1], [0, 0, 1]) == [[2], [2]]


@pytest.mark.parametrize("percent", [0.0, 0.1, 0.25, 0.5, 0.6])
def test_equal_scales_keep_exactly_the_planned_count(percent):
    chosen = plan(gates(torch.ones(7), torch.ones(20), torch.full((13,), -1.0)), percent)
    dropped = floor(percent * 40 + 1e-9)
    emptied = len(chosen.raised)  # the first layer goes first; emptied, it keeps one
    assert sum(chosen.widths) == 40 - dropped + emptied
    assert chosen.achieved == pytest.approx((dropped - emptied) / 40)


def test_percent_0_with_base_1_keeps_everything_in_order():
    for model in (models.build("nin", [9] * 8), models.build("nin_gc", PLAIN)):
        chosen = plan(gates_of(model), 0.0)
        assert chosen.widths == list(chosen.before) == model.cfg
        assert all(torch.equal(k, torch.arange(len(k))) for k in chosen.kept)
        assert (chosen.achieved, chosen.raised, chosen.whole) == (0, (), ())


@pytest.mark.parametrize(
    ("width", "base", "wanted", "expected"),
    [
        (20, 8, 20, 16),  # 24 would not fit
        (20, 8, 13, 16),
        (20, 8, 12, 16),  # a tie goes up
        (20, 8, 11, 8),
        (20, 8, 1, 8),  # at least one base
        (16, 8, 16, 16),
        (5, 8, 5, 5),  # narrower than the base: whole, whatever was wanted
        (5, 8, 1, 5),
        (20, 1, 7, 7),
        (20, 3, 20, 18),
    ],
)
def test_counts_go_to_multiples_of_the_base(width, base, wanted, expected):
    scales = torch.randperm(width, generator=torch.Generator().manual_seed(1)).double() + 1
    chosen = plan(gates(scales), (width - wanted) / width, base)
    assert chosen.widths == [expected]
    assert chosen.kept[0].tolist() == sorted(scales.argsort().tolist()[width - expected :])
    assert chosen.whole == (("a",) if width < base else ())


def test_an_emptied_layer_keeps_its_smallest_legal_width():
    chosen = plan(gates([1e-9] * 20, torch.arange(1, 21)), 0.5, 4)
    assert (chosen.widths, chosen.raised, chosen.whole) == ([4, 20], ("a",), ())
    assert kept(0.5, 1, [3e-9, 5e-9, 4e-9], [1, 1, 1]) == [[1], [0, 1, 2]]


@pytest.mark.parametrize("seed", range(5))
def test_only_the_size_of_a_scale_counts(seed):
    scales = ties(seed)
    assert kept(0.5, 2, *scales) == kept(0.5, 2, *(s.abs() for s in scales)) == kept(0.5, 2, *(-s for s in scales))


@pytest.mark.parametrize("value", [float("nan"), float("inf"), float("-inf")])
@pytest.mark.parametrize("percent", [0.0, 0.5])
def test_scales_that_are_not_finite_are_refused(value, percent):
    with pytest.raises(UserError, match="b has scales") as fault:
        plan(gates([1, 2], [1, value]), percent)
    assert fault.value.code == BAD_CHECKPOINT


@pytest.mark.parametrize(("percent", "base"), [(-0.1, 1), (1.0, 1), (float("nan"), 1), (0.5, 0)])
def test_settings_out_of_range_are_refused(percent, base):
    with pytest.raises(ValueError, match="percent"):
        plan(gates([1, 2]), percent, base)


@pytest.mark.parametrize("seed", range(5))
def test_a_larger_percent_keeps_a_part_of_what_a_smaller_one_keeps(seed):
    plans = [kept(n / 50, 1, *ties(seed)) for n in range(50)]
    for more, fewer in pairwise(plans):
        assert all(set(b) <= set(a) for a, b in zip(more, fewer, strict=True))


def sent(gate: Gate, width: int) -> torch.Tensor:
    """Channels from each producer group to each group of the one reader, by shuffling the groups' numbers as pictures."""
    ((groups, shuffle),) = gate.readers
    source = (torch.arange(width) // (width // gate.producer_groups)).reshape(1, width, 1, 1)
    arrived = ChannelShuffle(shuffle)(source).flatten()
    pairs = arrived * groups + torch.arange(width) // (width // groups)
    return pairs.bincount(minlength=gate.producer_groups * groups)


def test_for_the_wide_cfg_every_multiple_of_both_groups_is_legal():
    pairs = [(1, 2), (2, 2), (2, 16), (16, 4), (4, 4), (4, 32), (32, 8), (8, 1)]  # groups of producer and consumer
    for gate, pair in zip(gates_of(models.build("nin_gc")), pairs, strict=True):
        step = lcm(*pair)
        assert gate.allowed_widths(1) == list(range(step, gate.width + 1, step))
        assert gate.allowed_widths(24) == list(range(lcm(step, 24), gate.width + 1, lcm(step, 24)))


def test_for_the_plain_cfg_gates_6_and_7_allow_few_widths():
    found = {gate.name: gate.allowed_widths(1) for gate in gates_of(models.build("nin_gc", PLAIN))}
    assert found["block6.bn"] == [32, 64, 96, 128, 192]
    assert found["block7.bn"] == [64, 192]


@pytest.mark.parametrize("cfg", [PLAIN, (24, 20, 48, 48, 24, 96, 96, 24), (2, 4, 16, 32, 4, 64, 160, 8)])
def test_legal_widths_and_choices_of_grouped_gates_follow_the_shuffle(cfg):
    model = models.build("nin_gc", cfg)
    for gate in gates_of(model)[1:7]:  # the first and last have no groups on one side, and no shuffle
        scales = torch.randn(gate.width, generator=torch.Generator().manual_seed(2))
        gate = Gate(gate.name, scales, gate.producer_groups, gate.readers)
        step, have = lcm(gate.producer_groups, gate.readers[0][0]), sent(gate, gate.width)
        fits = [w for w in range(step, gate.width + 1, step) if (sent(gate, w) <= have).all()]
        assert gate.allowed_widths(1) == fits
        for width in fits:
            chosen = gate.choose(width)
            assert len(set(chosen.tolist())) == width
            cells = gate.positions(gate.width)
            assert torch.equal(cells[chosen], gate.positions(width))  # every place keeps its pair of groups
            left_out = torch.ones(gate.width, dtype=torch.bool)
            left_out[chosen] = False
            for cell in cells.unique(dim=0):
                inside = (cells == cell).all(1)
                best = scales.abs()[chosen[inside[chosen]]].min() if inside[chosen].any() else torch.inf
                assert (scales.abs()[inside & left_out] <= best).all()
