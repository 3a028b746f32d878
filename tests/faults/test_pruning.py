"""What pruning promises whatever the scales look like: counts, ties, floors, bases, groups, and that nothing is computed otherwise.

One seed draws a network with narrow widths, its scales, a percent and a base; every promise is checked on each.
"""

from __future__ import annotations

import random
import subprocess
import sys
from collections.abc import Callable
from math import floor, lcm
from pathlib import Path
from types import SimpleNamespace

import pytest
import torch
from prune.surgery import gates_of, masked, sliced
from torch import Tensor, nn

import models
from engine.checkpoint import format as checkpoint
from engine.checkpoint.format import Checkpoint, Metrics
from engine.checkpoint.history import Train, prunings
from engine.checkpoint.provenance import Origin
from engine.data.info import DataInfo
from engine.errors import BAD_CHECKPOINT, UserError
from models.blocks import ChannelShuffle
from models.channels import gates
from prune.plan import Gate, PrunePlan, plan
from prune.sparsity import gammas, looks_sparse
from tests.tools import residual
from tests.tools.surgery import BOUND, error, network, same_kind

ARCHS = [*models.names(), residual.ARCH]
MULTIPLES = (2, 2, 16, 16, 4, 32, 32, 8)  # what the groups of nin_gc's blocks ask of its widths
SEEDS = 300
PERCENTS = [n / 40 for n in range(38)] + [0.99, 0.999]


def widths(arch: str, draw: random.Random) -> list[int]:
    if arch == "nin_gc":
        return [multiple * draw.randint(1, 3) for multiple in MULTIPLES]
    if arch.startswith("separable"):
        found = [draw.randint(1, 4)]
        while len(found) < 8:
            found.append(found[-1] * draw.choice((1, 1, 2)))
        return found
    return [draw.randint(1, 14) for _ in range(8 if arch.startswith("nin") else 3)]


SCALES: dict[str, Callable[[Tensor], Tensor]] = {
    "any": lambda g: g,
    "tied": lambda g: (2 * g).round(),
    "equal": lambda g: torch.ones_like(g),
    "opposite": lambda g: g.sign(),
    "zero": lambda g: torch.zeros_like(g),
    "tiny": lambda g: g * 1e-9,
    "most of them zero": lambda g: g * (g.abs() > 1.5),
}


def drawn(seed: int) -> tuple[nn.Module, str, float, int]:
    """A network in float64, its arch, a percent and a base."""
    draw = random.Random(seed)
    arch = ARCHS[seed % len(ARCHS)]
    model = network(arch, widths(arch, draw), seed)
    kind = SCALES[draw.choice([*SCALES, "any", "any"])]
    for _, gate in gates(model):
        gate.weight.data.copy_(kind(gate.weight.data))
    return (
        model,
        arch,
        draw.choice([draw.uniform(0, 0.97), *PERCENTS[-3:], 0.0]),
        draw.choice((1, 1, 1, 2, 3, 4, 8, 16)),
    )


def check_counts(found: list[Gate], chosen: PrunePlan) -> None:
    """F1, F2, F4, F5, F6: as many as planned, none twice, never none; multiples of the base, or whole with a note."""
    total = sum(chosen.before)
    wanted = {gate.name: 0 for gate in found}
    ranked = sorted((abs(s), n, i) for n, gate in enumerate(found) for i, s in enumerate(gate.scales.tolist()))
    for _, n, _ in ranked[floor(chosen.percent * total + 1e-9) :]:
        wanted[found[n].name] += 1
    for gate, kept in zip(found, chosen.kept, strict=True):
        step = lcm(
            chosen.base, gate.unit, gate.producer_groups, *(value for reader in gate.readers for value in reader)
        )
        assert len(set(kept.tolist())) == len(kept) >= min(step, gate.width)
        assert 0 <= kept.min() <= kept.max() < gate.width
        whole = gate.name in chosen.whole
        assert whole == (len(kept) % chosen.base > 0)
        assert not whole or len(kept) == gate.width
        legal = list(range(step, gate.width + 1, step)) or [gate.width]
        if all(pair == (1, 1) for pair in gate.readers) and gate.producer_groups == 1:  # else fewer may be legal
            distance = abs(len(kept) - wanted[gate.name])
            assert distance == min(abs(w - wanted[gate.name]) for w in legal)
            assert len(kept) + 2 * distance not in legal or distance == 0 or len(kept) > wanted[gate.name]  # ties go up
        assert (gate.name in chosen.raised) == (wanted[gate.name] == 0 and not whole)
    absolute = [Gate(g.name, -g.scales.abs(), g.producer_groups, g.readers, g.unit) for g in found]
    assert all(map(torch.equal, plan(absolute, chosen.percent, chosen.base).kept, chosen.kept))
    assert 0 <= chosen.achieved < 1
    assert chosen.achieved == 1 - sum(map(len, chosen.kept)) / total


def check_ranks(found: list[Gate], chosen: PrunePlan) -> None:
    """F1: where no groups have a say, the kept ones are the largest, of equal ones the last."""
    for gate, kept in zip(found, chosen.kept, strict=True):
        if gate.unit == gate.producer_groups == 1 and not gate.readers:
            order = sorted((abs(s), i) for i, s in enumerate(gate.scales.tolist()))
            assert kept.tolist() == sorted(i for _, i in order[gate.width - len(kept) :])


def check_groups(model: nn.Module, small: nn.Module) -> None:
    """F7: groups divide what they are given, and groups, shuffles and names are those of the network as it was."""
    layers = [m for m in small.modules() if isinstance(m, nn.Conv2d)]
    assert all(m.in_channels % m.groups == 0 == m.out_channels % m.groups for m in layers)
    assert [n for n, _ in small.named_modules()] == [n for n, _ in model.named_modules()]
    assert [m.groups for m in small.modules() if isinstance(m, ChannelShuffle)] == [
        m.groups for m in model.modules() if isinstance(m, ChannelShuffle)
    ]


@torch.no_grad()
def check_seed(seed: int) -> None:
    model, arch, percent, base = drawn(seed)
    where = f"seed {seed}: {arch} {model.cfg}, percent {percent}, base {base}"
    found = gates_of(model)
    chosen = plan(found, percent, base)
    check_counts(found, chosen)
    check_ranks(found, chosen)
    silent, small = masked(model, chosen), sliced(model, chosen, same_kind(model, arch))
    check_groups(model, small)
    assert small.cfg == chosen.cfg
    again = models.build(arch, chosen.cfg, **small.arch_args).double()
    again.load_state_dict(small.state_dict())  # F10: the cfg alone says every shape
    x = torch.randn(2, 3, 8, 8, dtype=torch.float64)
    expected = silent(x)
    assert error(expected, small(x)) <= BOUND, where  # F8
    assert torch.equal(small(x), again.eval()(x))
    if percent == 0 and base == 1:
        assert all(map(torch.equal, small.state_dict().values(), model.state_dict().values())), where
    assert error(silent.float()(x.float()), small.float()(x.float())) <= 1e-5, where  # this converts them


def test_every_promise_on_300_networks() -> None:
    for seed in range(SEEDS):
        check_seed(seed)


@pytest.mark.slow
def test_every_promise_on_3000_networks() -> None:
    for seed in range(SEEDS, SEEDS + 3000):
        check_seed(seed)


@pytest.mark.parametrize("part", range(4))
def test_forty_percents_leave_a_network_that_computes(part: int) -> None:
    """F5: up to 0.999 every layer keeps a channel, whatever the network."""
    for arch in ARCHS:
        model = network(arch, widths(arch, random.Random(part)), part)
        for percent in PERCENTS[part::4]:
            chosen = plan(gates_of(model), percent)
            assert min(chosen.widths) >= 1
            with torch.no_grad():
                answer = sliced(model, chosen, same_kind(model, arch))(torch.randn(1, 3, 8, 8, dtype=torch.float64))
            assert answer.isfinite().all()


@pytest.mark.parametrize("base", range(1, 65))
def test_every_base_gives_multiples_of_it_or_whole_layers(base: int) -> None:
    """F6: 64 bases, 20 seeds each."""
    for seed in range(20):
        draw = random.Random(seed)
        source = torch.Generator().manual_seed(seed)
        found = [
            Gate(name, torch.randn(draw.randint(1, 200), generator=source, dtype=torch.float64))
            for name in ("a", "b", "c")
        ]
        chosen = plan(found, draw.uniform(0, 0.99), base)
        check_counts(found, chosen)
        for gate, width in zip(found, chosen.widths, strict=True):
            assert (width == gate.width) if gate.width < base else (width % base == 0 < width <= gate.width)


def test_scales_that_tell_nothing_apart_are_noticed() -> None:
    """F1: the command warns by this."""
    model = network("nin", [5] * 8, 0)
    assert looks_sparse(gammas(model))
    for spread, sparse in ((0.0, False), (0.9e-3, False), (1.1e-3, True)):
        for _, gate in gates(model):
            gate.weight.data.fill_(1)
            gate.weight.data[0] = -1 - spread  # size counts, not sign
        assert looks_sparse(gammas(model)) == sparse


@pytest.mark.parametrize("value", [float("nan"), float("inf"), -float("inf")])
@pytest.mark.parametrize("arch", ARCHS)
def test_a_scale_that_is_not_finite_is_refused(arch: str, value: float) -> None:
    """F3."""
    model = network(arch, widths(arch, random.Random(3)), 3)
    name, gate = gates(model)[1]
    gate.weight.data[-1] = value
    with pytest.raises(UserError, match=f"{name} has scales that are not finite") as fault:
        plan(gates_of(model), 0.1)
    assert fault.value.code == BAD_CHECKPOINT


@pytest.mark.parametrize("part", range(4))
def test_a_larger_percent_keeps_a_part_of_what_a_smaller_one_keeps(part: int) -> None:
    """F11: 200 pairs of percents on every network whose groups leave the choice free; base 1. An emptied layer keeps its best."""
    for seed in range(part, 200, 4):
        draw = random.Random(seed)
        arch = draw.choice([a for a in ARCHS if a != "nin_gc"])
        model = network(arch, widths(arch, draw), seed)
        low, high = sorted((draw.random(), draw.random()))
        more, fewer = (plan(gates_of(model), p) for p in (low, high))
        for a, b in zip(more.kept, fewer.kept, strict=True):
            assert set(b.tolist()) <= set(a.tolist()), f"seed {seed}: {arch} {low} {high}"


@pytest.mark.parametrize("seed", range(5))
def test_pruned_trained_and_pruned_again(seed: int) -> None:
    """F9: the second time starts from the cfg of the first, and both go by the same proof."""
    arch = ARCHS[seed + 1]
    model = network(arch, widths(arch, random.Random(seed + 40)), seed)
    once = sliced(model, plan(gates_of(model), 0.3), same_kind(model, arch)).train()
    optimizer = torch.optim.SGD(once.parameters(), 0.05)
    for _ in range(3):
        once(torch.randn(4, 3, 8, 8, dtype=torch.float64)).square().mean().backward()
        optimizer.step()
    once.eval()
    again = plan(gates_of(once), 0.3)
    assert again.cfg_before == once.cfg
    x = torch.randn(2, 3, 8, 8, dtype=torch.float64)
    with torch.no_grad():
        small = sliced(once, again, same_kind(once, arch))
        assert error(masked(once, again)(x), small(x)) <= BOUND
    assert sum(small.cfg) <= sum(once.cfg) <= sum(model.cfg)


def test_the_commands_prune_again_and_say_what_has_gone_in_all(refined: Callable[..., SimpleNamespace]) -> None:
    """F9."""
    done = refined(
        "prune.normal_regular", "--model", "models_save/nin_refine.pth", "--percent", 0.25, "--save", "b.pth", "--cpu"
    )
    assert done.code == 0, done.err
    pruned = checkpoint.load(Path("b.pth"))
    assert isinstance(pruned, Checkpoint)
    cfg = pruned.cfg
    assert [sum(stage.cfg_before) for stage in prunings(pruned.history)] == [64, 64 - floor(0.3 * 64)]
    assert f"64 -> {sum(cfg)} channels" in done.out
    assert f"{100 * (1 - sum(cfg) / 64):.2f} %" in done.out


READ_BACK = """
import sys, torch, models
from engine.checkpoint import format as checkpoint
from pathlib import Path
torch.set_num_threads(1)
for path in map(Path, sys.argv[1:]):
    content = checkpoint.load(path)
    model = models.restore(content, content.arch).eval()
    assert model.cfg == content.cfg
    x = torch.randn(2, 3, 8, 8, generator=torch.Generator().manual_seed(0))
    with torch.no_grad():
        print(path.name, model(x).flatten().tolist())
"""


def test_a_fresh_process_reads_back_the_pruned_network_bit_for_bit(tmp_path: Path) -> None:
    """F10: a strict load from nothing but the file."""
    info = DataInfo("digits", "digits", 10, 8, (0.5,) * 3, (0.25,) * 3)
    paths, expected = [], []
    for number, arch in enumerate(ARCHS):
        model = network(arch, widths(arch, random.Random(number)), number).float()
        small = sliced(
            model, plan(gates_of(model), 0.5), lambda cfg, a=arch, m=model: models.build(a, cfg, **m.arch_args)
        )
        path = tmp_path / f"{number}.pth"
        arguments = {"classes": 10, **small.arch_args}
        checkpoint.save(
            path,
            checkpoint.make(small, arch, arguments, info, Metrics(1.0), (Train(),), Origin(("x",), 1)),
        )
        x = torch.randn(2, 3, 8, 8, generator=torch.Generator().manual_seed(0))
        with torch.no_grad():
            expected.append(f"{path.name} {small(x).flatten().tolist()}")
        paths.append(str(path))
    done = subprocess.run(
        [sys.executable, "-c", READ_BACK, *paths],
        capture_output=True,
        text=True,
        check=False,
        cwd=Path(__file__).parents[2],
    )
    assert done.stdout.splitlines() == expected, done.stderr
