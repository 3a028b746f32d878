"""Shows that surgery loses nothing: the sliced network computes what the masked one does, groups and shuffles included."""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch
from prune.surgery import gates_of, masked, sliced
from torch import Tensor, nn

import models
from models.blocks import ChannelShuffle
from models.channels import gates
from prune.bn_statistics import reestimate_bn
from prune.plan import PrunePlan, plan
from tests.tools import residual
from tests.tools.surgery import BOUND, error, network, same_kind

CASES = [
    ("nin", [24, 20, 12, 24, 24, 24, 24, 24]),
    ("nin_3x3", [17, 9, 30, 5, 40, 8, 16, 23]),
    ("nin_gc", [32, 32, 32, 64, 64, 64, 128, 128]),  # the wide cfg, eightfold smaller
    ("nin_gc", [24, 20, 48, 48, 24, 96, 96, 24]),  # as in the plain cfg, groups do not meet evenly
    (residual.ARCH, [16, 24, 20]),
    ("separable", [3, 6, 6, 12, 12, 12, 12, 24]),  # depthwise convolutions with a bias, one and two rows a channel
    ("separable_wide", [3, 6, 6, 12, 12, 12, 12, 24]),  # channels stand and fall in pairs
    ("slimming", [12, 20, 28]),  # convolutions without a bias, and a linear layer
]


@torch.no_grad()
def both(model: nn.Module, arch: str, chosen: PrunePlan) -> tuple[Tensor, Tensor]:
    """Outputs of the masked and of the sliced network, for two pictures of small integers."""
    x = torch.randint(-2, 3, (2, 3, 8, 8)).double()
    return masked(model, chosen)(x), sliced(model, chosen, same_kind(model, arch))(x)


@pytest.mark.parametrize(("arch", "cfg"), CASES)
@pytest.mark.parametrize(("percent", "base"), [(p, n) for p in (0.0, 0.3, 0.5, 0.7, 0.95) for n in (1, 8, 16)])
def test_masked_equals_sliced(arch, cfg, base, percent):
    for seed in range(3):
        model = network(arch, cfg, seed)
        assert error(*both(model, arch, plan(gates_of(model), percent, base))) <= BOUND


@pytest.mark.parametrize(("arch", "cfg"), CASES)
@pytest.mark.parametrize(("percent", "base"), [(0.3, 1), (0.6, 1), (0.3, 8), (0.6, 8)])
def test_masked_equals_sliced_to_the_last_bit_where_sums_are_exact(arch, cfg, base, percent):
    for seed in range(3):
        model = network(arch, cfg, seed, exact=True)
        silent, cut = both(model, arch, plan(gates_of(model), percent, base))
        assert torch.equal(silent, cut)
        assert silent.any()


def test_the_comparison_notices_channels_that_take_the_place_of_others():
    """Equal counts for every producer group are not enough: a shuffle would send them to other readers."""
    model = network(*CASES[3], 0)
    chosen = plan(gates_of(model), 0.3)
    sixth = torch.arange(96).reshape(4, 24)[:, :8].flatten()  # 8 of each of block6's 4 groups
    careless = replace(chosen, kept=(*chosen.kept[:5], sixth, *chosen.kept[6:]))
    assert error(*both(model, "nin_gc", careless)) > 1e-3


@pytest.mark.parametrize(("arch", "cfg"), CASES)
def test_percent_0_changes_nothing(arch, cfg):
    model = network(arch, cfg, 1)
    same = sliced(model, plan(gates_of(model), 0.0), same_kind(model, arch))
    assert all(map(torch.equal, same.state_dict().values(), model.state_dict().values()))


@pytest.mark.parametrize(("arch", "cfg"), CASES)
def test_only_dropped_channels_are_silenced_and_the_old_network_stays(arch, cfg):
    model, twin = network(arch, cfg, 2), network(arch, cfg, 2)
    chosen = plan(gates_of(model), 0.5)
    silent, small = masked(model, chosen), sliced(model, chosen, same_kind(model, arch))
    assert all(map(torch.equal, model.state_dict().values(), twin.state_dict().values()))
    assert (small.cfg, small.training) == (chosen.cfg, model.training)
    for (_, bn), kept in zip(gates(twin), chosen.kept, strict=True):
        dropped = [channel for channel in range(bn.num_features) if channel not in kept.tolist()]
        bn.weight.data[dropped] = bn.bias.data[dropped] = 0
    assert all(map(torch.equal, silent.state_dict().values(), twin.state_dict().values()))


@pytest.mark.parametrize("cfg", [case[1] for case in CASES if case[0] == "nin_gc"])
def test_groups_and_shuffles_survive(cfg):
    model = network("nin_gc", cfg, 3)
    small = sliced(model, plan(gates_of(model), 0.5), same_kind(model, "nin_gc"))
    assert small.cfg != cfg
    assert [name for name, _ in small.named_modules()] == [name for name, _ in model.named_modules()]
    assert [m.groups for m in small.modules() if isinstance(m, nn.Conv2d)] == [1, 2, 2, 16, 4, 4, 32, 8, 1]
    assert [m.groups for m in small.modules() if isinstance(m, ChannelShuffle)] == [2, 2, 16, 4, 4, 32]


@pytest.mark.parametrize(("arch", "cfg"), CASES)
def test_a_pruned_network_is_pruned_again(arch, cfg):
    model = network(arch, cfg, 4)
    once = sliced(model, plan(gates_of(model), 0.3), same_kind(model, arch))
    again = plan(gates_of(once), 0.4)
    assert sum(again.cfg) < sum(once.cfg) < sum(cfg)
    assert error(*both(once, arch, again)) <= BOUND


def test_the_type_of_the_numbers_stays() -> None:
    """A builder gives float32, whatever the network was."""
    for dtype in (torch.float64, torch.float32, torch.bfloat16):
        model = network(*CASES[0], 1).to(dtype)
        small = sliced(model, plan(gates_of(model), 0.5), lambda cfg: models.build("nin", cfg))
        assert {p.dtype for p in small.parameters()} == {dtype}
        kept = plan(gates_of(model), 0.5).kept[0]
        assert torch.equal(small.block1.conv.weight, model.block1.conv.weight[kept])
        single = Pictures()
        single.dtype = torch.float32  # as a data set gives them
        reestimate_bn(small, single, 4, 1, batches=2)
        assert small.block1.bn.running_mean.dtype == dtype


class Pictures:
    """Three random batches an epoch; notes what it was asked for."""

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
    model, twin, pictures = network(*CASES[2], 5).train(training), network(*CASES[2], 5), Pictures()
    norms = {name: m for name, m in model.named_modules() if isinstance(m, nn.BatchNorm2d)}
    seen: dict[str, list[Tensor]] = {name: [] for name in norms}
    for name, norm in norms.items():
        norm.num_batches_tracked.fill_(1000)  # what training counted must not weigh in
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


def test_nothing_to_drop_changes_no_file(refined) -> None:
    done = refined("prune.normal_regular", "--percent", 0)
    was, now = (torch.load(path, weights_only=True) for path in ("models_save/nin_preprune.pth", done.path))
    assert (now["cfg"], now["best_acc"]) == (was["cfg"], was["best_acc"])
    assert all(torch.equal(now["state_dict"][key], value) for key, value in was["state_dict"].items())
