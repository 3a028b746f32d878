"""The channels that a plan keeps: the drop rule, rounding, and the widths that groups and shuffles allow."""

from __future__ import annotations

from functools import cache
from itertools import pairwise
from math import floor

import pytest
import torch

from models.graph.surgery.narrow import Signature
from prune import plan as planning
from prune.families import families, scores
from prune.plan import PrunePlan
from prune.rounding import by_distance, to_drop
from prune.widths import Subject
from tests.tools.planned import own, with_scales

PLAIN = (192, 160, 96, 192, 192, 192, 192, 192)
EIGHTH = (32, 32, 32, 64, 64, 64, 128, 128)  # of the grouped network's own widths
UNEVEN = (24, 20, 48, 48, 24, 96, 96, 24)  # as in PLAIN, groups do not meet evenly
FIRST, SECOND, THIRD = ("block1.conv", "block2.conv", "block3.conv")

network = cache(own)


def scaled(*scales: list[float] | torch.Tensor) -> Subject:
    """Return a network of three layers whose batch norms have these scales."""
    found = network("slimming", tuple(map(len, scales)))
    for number, values in enumerate(scales, 1):
        found.form.get_submodule(f"block{number}.bn").weight.data = torch.as_tensor(values, dtype=torch.float32)
    return found


def kept(tried: Subject, chosen: PrunePlan) -> list[list[int]]:
    """Return the kept channels, layer by layer."""
    places = {place.tensor: place.classes.tolist() for place in tried.found.places if place.makes and place.rows}
    rows = [places[f"block{n}.conv.weight"] for n in (1, 2, 3)]
    return [[i for i, cls in enumerate(classes) if cls not in chosen.dropped] for classes in rows]


def planned(percent: float, base: int, *scales: list[float] | torch.Tensor) -> list[list[int]]:
    tried = scaled(*scales)
    return kept(tried, planning.plan(tried, percent, base))


def ties(seed: int) -> list[torch.Tensor]:
    """Return three gates whose scales are small integers of both signs, so that most tie."""
    source = torch.Generator().manual_seed(seed)
    return [torch.randint(-3, 4, (width,), generator=source).float() for width in (7, 20, 13)]


def by_the_rule(scales: list[torch.Tensor], percent: float) -> list[list[int]]:
    """Apply the drop rule in plain Python; a layer keeps at least its two largest channels, of equal ones the last."""
    every = sorted((abs(g), layer, i) for layer, s in enumerate(scales) for i, g in enumerate(s.tolist()))
    gone = {(layer, i) for _, layer, i in every[: floor(percent * len(every) + 1e-9)]}
    result = []
    for n in range(len(scales)):
        mine = [i for _, layer, i in every if layer == n]
        stay = [i for i in mine if (n, i) not in gone]
        result.append(sorted(stay if len(stay) > 1 else mine[-2:]))
    return result


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
def test_the_nearest_width_comes_first(count, legal, expected):
    assert by_distance(count, legal)[0] == by_distance(count, legal[::-1])[0] == expected


@pytest.mark.parametrize(
    ("percent", "total", "dropped"),
    [(0.0, 10, 0), (0.29, 100, 29), (0.57, 100, 57), (0.5, 7, 3), (0.1, 9, 0), (0.999, 3, 2), (0.3, 10, 3)],
)  # 0.29 * 100 and 0.57 * 100 are just below 29 and 57 in floating point
def test_the_floor_of_percent_times_total_goes(percent, total, dropped):
    assert to_drop(percent, total) == dropped


def test_those_of_the_smallest_scale_go():
    scales = [list(range(1, 8)), [9.0] * 20, [9.0] * 13]
    for percent, dropped in ((0.05, 2), (0.074, 2), (0.075, 3), (0.1, 4)):
        assert planned(percent, 1, *scales) == [list(range(dropped, 7)), list(range(20)), list(range(13))]


def test_layers_whose_groups_leave_no_smaller_width_do_not_count():
    """At these widths, shuffles and groups fix five of eight layers; the share is of the channels of the others."""
    found = own("nin_gc", (8, 8, 16, 16, 8, 32, 32, 16))
    with_scales(found.form, 1)
    chosen = planning.plan(found, 0.5)
    assert chosen.stuck == tuple(f"block{n}.conv" for n in (3, 4, 5, 6, 7))
    assert chosen.cuttable == 8 + 8 + 16
    assert sum(chosen.widths) == sum(chosen.before) - len(chosen.dropped) < sum(chosen.before)
    assert not chosen.raised


@pytest.mark.parametrize("seed", range(5))
@pytest.mark.parametrize("percent", [0.0, 0.2, 0.5, 0.9])
def test_the_drop_rule_with_ties(seed, percent):
    scales = ties(seed)
    assert planned(percent, 1, *scales) == by_the_rule(scales, percent)


def test_ties_go_by_scale_then_layer_then_index():
    ones = [[1.0] * 7, [1.0] * 20, [1.0] * 13]
    assert planned(1 / 40, 1, *ones) == [[1, 2, 3, 4, 5, 6], list(range(20)), list(range(13))]
    assert planned(8 / 40, 1, *ones) == [[5, 6], list(range(1, 20)), list(range(13))]


@pytest.mark.parametrize("percent", [0.0, 0.1, 0.25, 0.5, 0.6])
def test_equal_scales_keep_exactly_the_planned_count(percent):
    chosen = planning.plan(scaled(torch.ones(7), torch.ones(20), torch.full((13,), -1.0)), percent)
    dropped = floor(percent * 40 + 1e-9)
    emptied = 2 * (dropped >= 7)  # the first layer is dropped first; emptied, it keeps two
    assert sum(chosen.widths) == 40 - dropped + emptied
    assert chosen.achieved == pytest.approx((dropped - emptied) / 40)
    assert chosen.raised == ((FIRST,) if emptied else ())


@pytest.mark.parametrize(("arch", "cfg"), [("nin", (9,) * 8), ("nin_gc", UNEVEN), ("separable_wide", None)])
def test_percent_0_with_base_1_keeps_everything(arch, cfg):
    tried = network(arch, cfg)
    chosen = planning.plan(tried, 0.0)
    assert chosen.widths == chosen.before
    assert chosen.cfg == chosen.cfg_before == tried.form.cfg
    assert (chosen.achieved, chosen.dropped, chosen.raised, chosen.whole) == (0, frozenset(), (), ())


@pytest.mark.parametrize(
    ("width", "base", "wanted", "expected"),
    [
        (20, 8, 20, 16),  # 24 would not fit
        (20, 8, 13, 16),
        (20, 8, 12, 16),  # a tie goes up
        (20, 8, 11, 8),
        (20, 8, 1, 8),  # at least one base
        (16, 8, 16, 16),
        (5, 8, 5, 5),  # narrower than the base: whole at any percent
        (5, 8, 1, 5),
        (20, 1, 7, 7),
        (20, 3, 20, 18),
    ],
)
def test_counts_go_to_multiples_of_the_base(width, base, wanted, expected):
    scales = torch.randperm(width, generator=torch.Generator().manual_seed(1)) + 1.0
    others = [[99.0] * 24, [99.0] * 24]  # both whole at every base
    tried = scaled(scales, *others)
    chosen = planning.plan(tried, (width - wanted) / (width + 48), base)
    assert list(chosen.widths) == [expected, 24, 24]
    assert kept(tried, chosen)[0] == sorted(scales.argsort().tolist()[width - expected :])
    assert chosen.whole == ((FIRST,) if wanted < width < base else ())


def test_an_emptied_layer_keeps_its_smallest_legal_width():
    chosen = planning.plan(scaled([1e-9] * 20, torch.arange(1, 21), [99.0] * 4), 20 / 44, 4)
    assert (chosen.widths, chosen.raised, chosen.whole) == ((4, 20, 4), (FIRST,), ())
    assert planned(3 / 9, 1, [3e-9, 5e-9, 4e-9], [1, 1, 1], [1, 1, 1]) == [[1, 2], [0, 1, 2], [0, 1, 2]]


@pytest.mark.parametrize(("asked", "raised"), [(2, ()), (1, (FIRST,)), (0, (FIRST,))])
def test_a_layer_keeps_two_channels(asked: int, raised: tuple[str, ...]) -> None:
    """The plan names a layer whose scores ask for fewer."""
    chosen = planning.plan(scaled([1e-9] * 7, [9.0] * 20, [9.0] * 13), (7 - asked) / 40)
    assert (chosen.widths, chosen.raised) == ((2, 20, 13), raised)


@pytest.mark.parametrize("seed", range(3))
def test_only_the_size_of_a_scale_counts(seed):
    scales = ties(seed)
    assert (
        planned(0.5, 2, *scales)
        == planned(0.5, 2, *(s.abs() for s in scales))
        == planned(0.5, 2, *(-s for s in scales))
    )


@pytest.mark.parametrize(("percent", "base"), [(-0.1, 1), (1.0, 1), (float("nan"), 1), (0.5, 0)])
def test_settings_out_of_range_are_refused(percent, base):
    with pytest.raises(ValueError, match="percent"):
        planning.plan(network("slimming", (7, 20, 13)), percent, base)


@pytest.mark.parametrize("seed", range(2))
def test_a_larger_percent_keeps_a_part_of_what_a_smaller_one_keeps(seed):
    plans = [planned(n / 12, 1, *ties(seed)) for n in range(12)]
    for more, fewer in pairwise(plans):
        assert all(set(b) <= set(a) for a, b in zip(more, fewer, strict=True))


# Results of the former plan for declared channel groups, which traced through shuffles which channel of a producer's group each
# reader's group gets. A layer now keeps two channels where it kept one.
AS_EVER = [
    ("nin", (24, 20, 12, 24, 24, 24, 24, 24), 0.3, 1, [15, 12, 6, 21, 22, 17, 16, 15]),
    ("nin", (24, 20, 12, 24, 24, 24, 24, 24), 0.6, 1, [12, 5, 2, 13, 14, 10, 11, 4]),
    ("nin", (24, 20, 12, 24, 24, 24, 24, 24), 0.4, 8, [16, 8, 8, 24, 16, 16, 16, 8]),
    ("nin_3x3", (17, 9, 30, 5, 40, 8, 16, 23), 0.3, 1, [12, 2, 22, 3, 30, 4, 11, 20]),
    ("nin_3x3", (17, 9, 30, 5, 40, 8, 16, 23), 0.6, 1, [6, 1, 14, 2, 16, 1, 4, 17]),
    ("nin_3x3", (17, 9, 30, 5, 40, 8, 16, 23), 0.4, 8, [8, 8, 16, 5, 24, 8, 8, 16]),
    pytest.param("nin_gc", EIGHTH, 0.3, 1, [22, 16, 32, 48, 40, 64, 128, 96], marks=pytest.mark.slow),
    pytest.param("nin_gc", EIGHTH, 0.6, 1, [14, 8, 16, 32, 20, 64, 128, 64], marks=pytest.mark.slow),
    pytest.param("nin_gc", EIGHTH, 0.4, 8, [24, 8, 16, 32, 32, 64, 128, 88], marks=pytest.mark.slow),
    ("nin_gc", UNEVEN, 0.3, 1, [18, 14, 32, 48, 24, 32, 96, 16]),
    pytest.param("nin_gc", UNEVEN, 0.6, 1, [14, 8, 16, 16, 12, 32, 96, 8], marks=pytest.mark.slow),
    pytest.param("nin_gc", UNEVEN, 0.4, 8, [16, 8, 16, 48, 16, 32, 96, 16], marks=pytest.mark.slow),
    pytest.param("nin_gc", PLAIN, 0.3, 1, [142, 118, 80, 160, 144, 96, 64, 144], marks=pytest.mark.slow),
    ("nin_gc", PLAIN, 0.6, 1, [94, 68, 48, 96, 96, 32, 64, 88]),
    pytest.param("nin_gc", PLAIN, 0.4, 8, [128, 104, 64, 128, 128, 64, 64, 120], marks=pytest.mark.slow),
    ("separable", (3, 6, 6, 12, 12, 12, 12, 24), 0.3, 1, [1, 5, 3, 10, 7, 7, 9, 19]),
    ("separable", (3, 6, 6, 12, 12, 12, 12, 24), 0.6, 1, [1, 3, 1, 7, 1, 2, 9, 11]),
    ("separable", (3, 6, 6, 12, 12, 12, 12, 24), 0.4, 8, [3, 6, 6, 8, 8, 8, 8, 16]),
    ("slimming", (12, 20, 28), 0.3, 1, [7, 14, 21]),
    ("slimming", (12, 20, 28), 0.6, 1, [3, 8, 13]),
    ("slimming", (12, 20, 28), 0.4, 8, [8, 16, 16]),
]


@pytest.mark.parametrize(("arch", "cfg", "percent", "base", "expected"), AS_EVER)
def test_widths_are_those_of_the_declared_groups(arch, cfg, percent, base, expected):
    tried = network(arch, cfg)
    with_scales(tried.form, 1)
    assert planning.plan(tried, percent, base).cfg == [max(width, 2) for width in expected]


def left(tried: Subject, chosen: PrunePlan) -> dict[Signature, tuple[list[float], list[float]]]:
    """Return, for each kind of channels, the scores of the kept and of the dropped channels."""
    worth = scores(tried.form, tried.found)
    kinds = {kind: classes for f in families(tried.found, worth) for kind, classes in f.kinds.items()}
    return {
        kind: tuple([worth[c] for c in classes if (c in chosen.dropped) == gone] for gone in (False, True))  # type: ignore[misc]
        for kind, classes in kinds.items()
    }


@pytest.mark.parametrize("cfg", [pytest.param(EIGHTH, marks=pytest.mark.slow), UNEVEN])
def test_of_the_channels_between_two_groups_the_best_stay(cfg):
    tried = network("nin_gc", cfg)
    with_scales(tried.form, 2)
    chosen = planning.plan(tried, 0.4)
    kinds = left(tried, chosen)
    assert len(kinds) > 40  # pairs of a producer's group and a reader's
    assert all(max(gone, default=0) <= min(stay, default=9e9) for stay, gone in kinds.values())
    groups = (1, 2, 2, 16, 4, 4, 32, 8, 1)
    for width, (before, after) in zip(chosen.cfg, pairwise(groups), strict=True):
        assert width % before == width % after == 0
