"""Surgery is exact: the narrowed network computes the same as the masked one, groups and shuffles included."""

from __future__ import annotations

import copy
from dataclasses import replace

import pytest
import torch
from torch import Tensor, nn

from models import forms, registry
from models.graph.channels.classes import channels
from models.graph.normal import NormalForm
from models.graph.surgery.narrow import masked, narrowed
from models.graph.surgery.resize import NotLegal, resized, shapes
from prune import plan as planning
from prune.bn_statistics import reestimate_bn
from prune.widths import Subject
from tests.tools import residual
from tests.tools.surgery import BOUND, error, network

CASES = [
    ("nin", [24, 20, 12, 24, 24, 24, 24, 24]),
    ("nin_3x3", [17, 9, 30, 5, 40, 8, 16, 23]),
    ("nin_gc", [32, 32, 32, 64, 64, 64, 128, 128]),  # the wide cfg, eightfold smaller
    ("nin_gc", [24, 20, 48, 48, 24, 96, 96, 24]),  # as in the plain cfg, groups do not meet evenly
    (residual.ARCH, [16, 24, 20]),
    ("separable", [3, 6, 6, 12, 12, 12, 12, 24]),  # depthwise convolutions with a bias, one and two rows a channel
    ("separable_wide", [3, 6, 6, 12, 12, 12, 12, 24]),  # channels are kept or dropped in pairs
    ("slimming", [12, 20, 28]),  # convolutions without a bias, and a linear layer
]

SLOW = {("nin_gc", 32), ("nin_3x3", 17), ("separable", 3)}
FEW = [pytest.param(*case, marks=pytest.mark.slow) if (case[0], case[1][0]) in SLOW else case for case in CASES]
"""CASES, of which only distinct ones are in the fast tests."""

SLOWER = [(0.3, 8), (0.5, 16), (0.7, 8), (0.95, 1)]  # percents and bases


def cut(found: Subject, dropped: frozenset[int]) -> NormalForm:
    return narrowed(found.model, found.form, found.found, dropped, found.arch)


@torch.no_grad()
def both(found: Subject, dropped: frozenset[int]) -> tuple[Tensor, Tensor]:
    """Return the outputs of the masked and of the narrowed network for two pictures of small integers."""
    x = torch.randint(-2, 3, (2, 3, 8, 8)).double()
    return masked(found.form, found.found, dropped)(x), cut(found, dropped)(x)


@pytest.mark.parametrize(("arch", "cfg"), [*FEW, CASES[1], CASES[5]])
@pytest.mark.parametrize(
    ("percent", "base"), [(0.3, 1), *(pytest.param(*more, marks=pytest.mark.slow) for more in SLOWER)]
)
def test_masked_equals_narrowed(arch, cfg, base, percent):
    found = network(arch, cfg, seed=0)
    assert error(*both(found, planning.plan(found, percent, base).dropped)) <= BOUND


@pytest.mark.parametrize(("arch", "cfg"), FEW)
@pytest.mark.parametrize(
    ("percent", "base"), [(0.6, 1), *(pytest.param(*more, marks=pytest.mark.slow) for more in SLOWER)]
)
def test_masked_equals_narrowed_to_the_last_bit_where_sums_are_exact(arch, cfg, base, percent):
    found = network(arch, cfg, seed=int(10 * percent), exact=True)
    silent, small = both(found, planning.plan(found, percent, base).dropped)
    assert torch.equal(silent, small)
    assert silent.any()


def test_channels_that_take_the_place_of_others_are_refused():
    """Equal counts in every producer group are not enough: a shuffle would send channels to other readers."""
    found = network(*CASES[3], 0)
    sixth = next(place for place in found.found.places if place.tensor == "block6.conv.weight" and place.rows)
    kept = torch.arange(96).reshape(4, 24)[:, :8].flatten()  # 8 of each of block6's 4 groups
    careless = frozenset(sixth.classes.tolist()) - frozenset(sixth.classes[kept].tolist())
    with pytest.raises(NotLegal, match=r"channels? of a kind"):
        cut(found, careless)


@pytest.mark.parametrize(("arch", "cfg"), FEW)
def test_percent_0_changes_nothing(arch, cfg):
    found = network(arch, cfg, 1)
    same = cut(found, planning.plan(found, 0.0).dropped)
    assert list(same.state_dict()) == list(found.form.state_dict())
    assert all(map(torch.equal, same.state_dict().values(), found.form.state_dict().values()))


@pytest.mark.parametrize(("arch", "cfg"), FEW)
def test_only_dropped_channels_are_silenced_and_the_old_network_stays(arch, cfg):
    found, twin = network(arch, cfg, 2), network(arch, cfg, 2)
    chosen = planning.plan(found, 0.5)
    silent, small = masked(found.form, found.found, chosen.dropped), cut(found, chosen.dropped)
    assert all(map(torch.equal, found.form.state_dict().values(), twin.form.state_dict().values()))
    assert (small.training, registry.widths(arch, small) or chosen.cfg) == (False, chosen.cfg)
    rows = {
        p.tensor: torch.isin(p.classes, torch.tensor(sorted(chosen.dropped))) for p in found.found.places if p.makes
    }
    state = twin.form.state_dict()
    for norm in [name for name, module in twin.form.named_modules() if isinstance(module, nn.BatchNorm2d)]:
        place = next(p for p in found.found.places if p.tensor == f"{norm}.weight")
        gone = torch.isin(place.classes, torch.tensor(sorted(chosen.dropped)))
        for key in (f"{norm}.weight", f"{norm}.bias"):
            state[key] = state[key].masked_fill(gone, 0)
            assert torch.equal(silent.state_dict()[key], state[key]), key
    for key, gone in rows.items():  # and the layers that make them, bias included
        for name in (key, key.replace("weight", "bias")):
            if name in state:
                expected = state[name].clone()
                expected[gone] = 0
                assert torch.equal(silent.state_dict()[name], expected), name
    others = [k for k in state if k.rpartition(".")[2] in ("running_mean", "running_var", "num_batches_tracked")]
    assert all(torch.equal(silent.state_dict()[k], state[k]) for k in others)


@pytest.mark.parametrize("cfg", [pytest.param(CASES[2][1], marks=pytest.mark.slow), CASES[3][1]])
def test_groups_survive_and_the_network_is_the_one_of_its_cfg(cfg):
    found = network("nin_gc", cfg, 3)
    chosen = planning.plan(found, 0.5)
    small = cut(found, chosen.dropped)
    assert chosen.cfg != cfg
    assert [m.groups for m in small.modules() if isinstance(m, nn.Conv2d)] == [1, 2, 2, 16, 4, 4, 32, 8, 1]
    built = forms.build("nin_gc", chosen.cfg, side=8).double().eval()
    built.load_state_dict(small.state_dict())
    x = torch.randn(2, 3, 8, 8).double()
    assert torch.equal(built(x), small(x))


@pytest.mark.parametrize(("arch", "cfg"), FEW)
def test_a_pruned_network_is_pruned_again(arch, cfg):
    found = network(arch, cfg, 4)
    chosen = planning.plan(found, 0.3)
    once = cut(found, chosen.dropped)
    plain = narrowed_plain(found, chosen.dropped)
    again = replace(found, model=plain, form=once, found=channels(once, once.captured.whole))
    more = planning.plan(again, 0.4)
    assert sum(more.cfg) < sum(chosen.cfg) < sum(chosen.cfg_before)
    assert error(*both(again, more.dropped)) <= BOUND


def narrowed_plain(found: Subject, dropped: frozenset[int]) -> nn.Module:
    """Return the network built by its code with the narrower widths."""
    gone = torch.tensor(sorted(dropped))
    left = {(p.tensor, p.axis): int((~torch.isin(p.classes, gone)).sum()) for p in found.found.places}
    return resized(found.model, shapes(found.form, found.found, left), found.found.whole)


def test_the_type_of_the_numbers_stays() -> None:
    """The narrowed network keeps the network's type."""
    double = network(*CASES[0], 1)
    chosen = planning.plan(double, 0.5)
    (place,) = (p for p in double.found.places if p.tensor == "block1.conv.weight" and p.rows)
    kept = [n for n, cls in enumerate(place.classes.tolist()) if cls not in chosen.dropped]
    for dtype in (torch.float64, torch.float32, torch.bfloat16):
        found = replace(double, model=copy.deepcopy(double.model).to(dtype), form=copy.deepcopy(double.form).to(dtype))
        small = cut(found, chosen.dropped)
        assert {p.dtype for p in small.parameters()} == {dtype}
        assert torch.equal(
            small.get_submodule("block1.conv").weight, found.form.get_submodule("block1.conv").weight[kept]
        )
        single = Pictures()
        single.dtype = torch.float32  # as a data set gives them
        reestimate_bn(small, single, 4, 1, batches=2)
        assert small.get_submodule("block1.bn").running_mean.dtype == dtype


class Pictures:
    """A split with three random batches in an epoch that records its calls."""

    dtype = torch.float64

    def __init__(self) -> None:
        self.asked: list[tuple[int, int, int]] = []

    def __len__(self) -> int:
        return 12

    def training_batches(self, size: int, seed: int, epoch: int):
        self.asked.append((size, seed, epoch))
        for _ in range(3):
            yield torch.randn(4, 3, 8, 8, dtype=self.dtype), torch.zeros(4)


@pytest.mark.parametrize("training", [True, False])
def test_bn_statistics_become_the_mean_over_batches(training):
    model, twin, pictures = network(*CASES[2], 5).form.train(training), network(*CASES[2], 5).form, Pictures()
    norms = {name: m for name, m in model.named_modules() if isinstance(m, nn.BatchNorm2d)}
    seen: dict[str, list[Tensor]] = {name: [] for name in norms}
    for name, norm in norms.items():
        norm.num_batches_tracked.fill_(1000)  # training's count must not matter
        norm.register_forward_pre_hook(lambda _, inputs, name=name: seen[name].append(inputs[0]))
    reestimate_bn(model, pictures, 99, 7, batches=5)
    assert pictures.asked == [(12, 7, 0), (12, 7, 1)]  # no batch is larger than the set, and 5 batches are 2 epochs
    for name, norm in norms.items():
        assert len(seen[name]) == int(norm.num_batches_tracked) == 5
        mean = torch.stack([x.mean((0, 2, 3)) for x in seen[name]]).mean(0)
        var = torch.stack([x.var((0, 2, 3)) for x in seen[name]]).mean(0)  # unbiased, as torch keeps it
        torch.testing.assert_close(norm.running_mean, mean, rtol=1e-10, atol=1e-12)
        torch.testing.assert_close(norm.running_var, var, rtol=1e-10, atol=1e-12)
        assert (norm.momentum, norm.training) == (0.1, training)
    assert all(map(torch.equal, model.parameters(), twin.parameters()))


def test_bn_statistics_are_those_of_evaluation_where_training_drops_numbers() -> None:
    torch.manual_seed(0)
    dropping = (nn.Dropout2d(0.5), nn.Conv2d(3, 4, 3), nn.Dropout(0.5), nn.Conv2d(4, 5, 1), nn.BatchNorm2d(5))
    net, x = nn.Sequential(*dropping).train(), torch.randn(12, 3, 8, 8)

    class Same(Pictures):
        def training_batches(self, size: int, seed: int, epoch: int):
            yield x, torch.zeros(12)

    reestimate_bn(net, Same(), 12, 1, batches=1)
    with torch.no_grad():
        read = net[3](net[1](x))
    torch.testing.assert_close(net[4].running_mean, read.mean((0, 2, 3)))
    torch.testing.assert_close(net[4].running_var, read.var((0, 2, 3)))
    assert all(module.training for module in net)


def test_a_damaged_picture_leaves_modes_and_momenta_as_they_were() -> None:
    class Damaged(Pictures):
        def training_batches(self, size: int, seed: int, epoch: int):
            yield torch.randn(4, 3, 8, 8, dtype=self.dtype), torch.zeros(4)
            raise OSError("a damaged picture")

    model = network(*CASES[2], 5).form.eval()
    with pytest.raises(OSError, match="a damaged picture"):
        reestimate_bn(model, Damaged(), 4, 1)
    assert not model.training
    assert all(m.momentum == 0.1 for m in model.modules() if isinstance(m, nn.BatchNorm2d))


def test_nothing_to_drop_changes_no_file(refined) -> None:
    done = refined("prune.normal_regular", "--percent", 0)
    was, now = (torch.load(path, weights_only=True) for path in ("models_save/nin_preprune.pth", done.path))
    assert (now["cfg"], now["best_acc"]) == (was["cfg"], was["best_acc"])
    assert all(torch.equal(now["state_dict"][key], value) for key, value in was["state_dict"].items())
