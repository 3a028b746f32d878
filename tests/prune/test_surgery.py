"""Shows that surgery loses nothing: the sliced network computes what the masked one does, groups and shuffles included."""

from __future__ import annotations

import random

import pytest
import torch
from torch import Tensor, nn

import models
from models.blocks import ChannelShuffle
from models.channels import gates
from prune.plan import PrunePlan, plan
from prune.surgery import gates_of, masked, reestimate_bn, sliced
from tests.models import residual

BOUND = 1e-10  # of the largest output, in float64
CASES = [
    ("nin", [24, 20, 12, 24, 24, 24, 24, 24]),
    ("nin_3x3", [17, 9, 30, 5, 40, 8, 16, 23]),
    ("nin_gc", [32, 32, 32, 64, 64, 64, 128, 128]),  # the wide cfg, eightfold smaller
    ("nin_gc", [24, 20, 48, 48, 24, 96, 96, 24]),  # as in the plain cfg, groups do not meet evenly
    (residual.ARCH, [16, 24, 20]),
]
MULTIPLES = (2, 2, 16, 16, 4, 32, 32, 8)
"""What the groups of nin_gc's blocks, 1,2,2,16,4,4,32,8,1, ask of its eight widths."""


@pytest.fixture(autouse=True)
def _one_thread(_two_threads: None) -> None:
    """On pictures this small a second thread costs more than it does, and on a busy machine a hundredfold."""
    torch.set_num_threads(1)


def network(arch: str, cfg: list[int], seed: int, exact: bool = False) -> nn.Module:
    """A float64 network in eval mode whose BNs are nothing like fresh ones: gammas of both signs, any statistics.

    With `exact`, weights are integers of -2..2 and every scale is a power of two: no sum is ever rounded, in any
    order, as the terms of the largest use 0.02 of the 2^53 steps that float64 has.
    """
    torch.manual_seed(seed)
    model = models.build(arch, cfg).double().eval()
    for module in model.modules():
        if exact and isinstance(module, (nn.Conv2d, nn.Linear)):
            for tensor in (module.weight.data, module.bias.data):
                tensor.copy_(torch.randint(-2, 3, tensor.shape))
        elif isinstance(module, nn.BatchNorm2d):
            gamma, beta, mean, var = (t.data for t in (module.weight, module.bias, module.running_mean, module.running_var))
            if exact:
                module.eps = 0.0  # deviation 1 or 2, to the last bit
                var.copy_(4.0 ** torch.randint(0, 2, var.shape))
                gamma.copy_(2.0 ** torch.randint(0, 2, gamma.shape) * (1 - 2 * torch.randint(0, 2, gamma.shape)))
                beta.copy_(torch.randint(-2, 4, beta.shape))
                mean.copy_(torch.randint(-2, 3, mean.shape))
            else:
                gamma.normal_()
                beta.normal_(0.3)  # keeps most ReLUs alive
                mean.normal_(0, 0.3)
                var.uniform_(0.3, 2)
    return model


def builder(arch: str, like: nn.Module):
    """What sliced() is given: an empty network of the same kind. eps is no weight, so it is set here."""

    def build(cfg: list[int]) -> nn.Module:
        small = models.build(arch, cfg).double()
        for module in small.modules():
            if isinstance(module, nn.BatchNorm2d):
                module.eps = gates(like)[0][1].eps
        return small

    return build


@torch.no_grad()
def both(model: nn.Module, arch: str, chosen: PrunePlan, x: Tensor | None = None) -> tuple[Tensor, Tensor]:
    """Outputs of the masked and of the sliced network."""
    x = torch.randn(2, 3, 8, 8, dtype=torch.float64) if x is None else x
    return masked(model, chosen)(x), sliced(model, chosen, builder(arch, model))(x)


def error(a: Tensor, b: Tensor) -> float:
    """Largest difference, as a share of the largest value."""
    return float((a - b).abs().max() / a.abs().max().clamp(min=1e-30))


@pytest.mark.parametrize(("arch", "cfg"), CASES)
@pytest.mark.parametrize("base", [1, 8, 16])
@pytest.mark.parametrize("percent", [0.0, 0.3, 0.5, 0.7, 0.95])
def test_masked_equals_sliced(arch, cfg, base, percent):
    for seed in range(3):
        model = network(arch, cfg, seed)
        assert error(*both(model, arch, plan(gates_of(model), percent, base))) <= BOUND


@pytest.mark.parametrize(("arch", "cfg"), CASES)
@pytest.mark.parametrize("base", [1, 8])
@pytest.mark.parametrize("percent", [0.3, 0.6])
def test_masked_equals_sliced_to_the_last_bit_where_sums_are_exact(arch, cfg, base, percent):
    for seed in range(3):
        model = network(arch, cfg, seed, exact=True)
        x = torch.randint(-2, 3, (2, 3, 8, 8)).double()
        silent, cut = both(model, arch, plan(gates_of(model), percent, base), x)
        assert torch.equal(silent, cut)
        assert silent.any()


def random_case(arch: str, seed: int) -> tuple[nn.Module, PrunePlan]:
    """A network of random widths, and a plan of random percent and base."""
    draw = random.Random(f"{arch} {seed}")
    if arch == "nin_gc":
        cfg = [multiple * draw.randint(1, max(1, 128 // multiple)) for multiple in MULTIPLES]
    else:
        cfg = [draw.randint(1, 40) for _ in range(3 if arch == residual.ARCH else 8)]
    model = network(arch, cfg, seed)
    return model, plan(gates_of(model), draw.uniform(0, 0.95), draw.choice((1, 1, 2, 3, 4, 8, 16)))


@pytest.mark.slow
@pytest.mark.parametrize("arch", [*models.names(), residual.ARCH])
def test_masked_equals_sliced_for_random_widths_and_settings(arch):
    alive = 0
    for seed in range(250):
        model, chosen = random_case(arch, seed)
        silent, cut = both(model, arch, chosen)
        assert error(silent, cut) <= BOUND, f"{arch} seed {seed}: {model.cfg} -> {chosen.widths}"
        alive += error(*silent) > 1e-6
    assert alive > 150  # pruned hard, some networks answer the same to both pictures: they prove less


def test_the_comparison_notices_channels_that_take_the_place_of_others():
    """Equal counts for every producer group are not enough: a shuffle would send them to other readers."""
    arch, cfg = CASES[3]
    model = network(arch, cfg, 0)
    chosen = plan(gates_of(model), 0.3)
    sixth = torch.arange(96).reshape(4, 24)[:, :8].flatten()  # 8 of each of block6's 4 groups
    kept = (*chosen.kept[:5], sixth, *chosen.kept[6:])
    careless = PrunePlan(chosen.names, chosen.before, kept, 0.3, 1)
    assert error(*both(model, arch, careless)) > 1e-3


@pytest.mark.parametrize(("arch", "cfg"), CASES)
def test_percent_0_changes_nothing(arch, cfg):
    model = network(arch, cfg, 1)
    whole = plan(gates_of(model), 0.0)
    for same in (masked(model, whole), sliced(model, whole, builder(arch, model))):
        assert same.cfg == cfg
        assert all(torch.equal(same.state_dict()[key], value) for key, value in model.state_dict().items())


@pytest.mark.parametrize(("arch", "cfg"), CASES)
def test_only_dropped_channels_are_silenced_and_the_old_network_stays(arch, cfg):
    model = network(arch, cfg, 2)
    before = {key: value.clone() for key, value in model.state_dict().items()}
    chosen = plan(gates_of(model), 0.5)
    expected = {key: value.clone() for key, value in before.items()}
    for name, kept in zip(chosen.names, chosen.kept, strict=True):
        dropped = [c for c in range(len(before[f"{name}.weight"])) if c not in kept.tolist()]
        expected[f"{name}.weight"][dropped] = expected[f"{name}.bias"][dropped] = 0
    after = masked(model, chosen).state_dict()
    small = sliced(model, chosen, builder(arch, model))
    assert all(torch.equal(after[key], value) for key, value in expected.items())
    assert all(torch.equal(model.state_dict()[key], value) for key, value in before.items())
    assert small.cfg == chosen.widths
    assert small.training == model.training


@pytest.mark.parametrize("cfg", [case[1] for case in CASES if case[0] == "nin_gc"])
def test_groups_and_shuffles_survive(cfg):
    model = network("nin_gc", cfg, 3)
    small = sliced(model, plan(gates_of(model), 0.5), builder("nin_gc", model))
    assert small.cfg != cfg
    for kind in (nn.Conv2d, ChannelShuffle):
        groups = [[(n, m.groups) for n, m in net.named_modules() if isinstance(m, kind)] for net in (model, small)]
        assert groups[0] == groups[1]
    assert [m.groups for m in small.modules() if isinstance(m, nn.Conv2d)] == [1, 2, 2, 16, 4, 4, 32, 8, 1]
    assert [m.groups for m in small.modules() if isinstance(m, ChannelShuffle)] == [2, 2, 16, 4, 4, 32]


@pytest.mark.parametrize(("arch", "cfg"), CASES)
def test_a_pruned_network_is_pruned_again(arch, cfg):
    model = network(arch, cfg, 4)
    once = sliced(model, plan(gates_of(model), 0.3), builder(arch, model))
    again = plan(gates_of(once), 0.4)
    assert sum(again.widths) < sum(once.cfg) < sum(cfg)
    assert error(*both(once, arch, again)) <= BOUND


class Pictures:
    """Three float64 batches an epoch, other ones in every epoch; says what it was asked for."""

    def __init__(self) -> None:
        self.asked: list[tuple[int, int, int]] = []

    def __len__(self) -> int:
        return 12

    def training_batches(self, size: int, seed: int, epoch: int):
        self.asked.append((size, seed, epoch))
        source = torch.Generator().manual_seed(seed + epoch)
        for _ in range(3):
            yield torch.randn(4, 3, 8, 8, dtype=torch.float64, generator=source), torch.zeros(4)


@pytest.mark.parametrize("training", [True, False])
def test_bn_statistics_become_the_mean_over_batches(training):
    model, pictures = network(*CASES[2], 5).train(training), Pictures()
    norms = {name: m for name, m in model.named_modules() if isinstance(m, nn.BatchNorm2d)}
    before = {key: value.clone() for key, value in model.state_dict().items()}
    seen: dict[str, list[Tensor]] = {name: [] for name in norms}
    for name, norm in norms.items():
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
    for key, value in model.state_dict().items():
        if key.rpartition(".")[2] not in ("running_mean", "running_var", "num_batches_tracked"):
            assert torch.equal(value, before[key])
