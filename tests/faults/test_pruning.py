"""Promises of pruning for any scales: counts, ties, floors, bases, groups, and unchanged results.

One seed draws a network with narrow widths, its scales, a percent and a base; every promise is checked on each.
"""

from __future__ import annotations

import random
import subprocess
import sys
from collections.abc import Callable
from dataclasses import dataclass
from math import floor
from pathlib import Path
from types import SimpleNamespace

import pytest
import torch
from torch import Tensor, nn

import models
from engine.checkpoint import format as checkpoint
from engine.checkpoint.format import Checkpoint, Metrics
from engine.checkpoint.history import Prune, Train, prunings
from engine.checkpoint.provenance import Origin
from engine.data.info import DataInfo
from engine.errors import BAD_CHECKPOINT, UserError
from models import registry
from models.graph.capture.form import capture
from models.graph.channels.classes import channels
from models.graph.normal import NormalForm
from models.graph.surgery.narrow import masked, narrowed
from prune import plan as planning
from prune.plan import PrunePlan
from prune.sparsity import gammas, gates, looks_sparse
from prune.widths import Subject
from tests.tools import residual
from tests.tools.surgery import BOUND, error, network

ARCHS = [*models.names(), residual.ARCH]
MULTIPLES = (2, 2, 16, 16, 4, 32, 32, 8)  # what the groups of nin_gc's blocks ask of its widths
SEEDS = 7
SIZE = 8
PERCENTS = [0.99, 0.999, 0.0]


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


@dataclass(frozen=True)
class Case:
    """A network in float64, as its code builds it and in its normal form."""

    arch: str
    tried: Subject

    @property
    def plain(self) -> nn.Module:
        return self.tried.model

    @property
    def form(self) -> NormalForm:
        return self.tried.form

    def plan(self, percent: float, base: int = 1) -> PrunePlan:
        return planning.plan(self.tried, percent, base)

    def cut(self, chosen: PrunePlan) -> tuple[NormalForm, NormalForm]:
        """Return the masked and the narrowed network."""
        found = self.tried.found
        return masked(self.form, found, chosen.dropped), narrowed(
            self.plain, self.form, found, chosen.dropped, self.arch
        )


def case(arch: str, cfg: list[int], seed: int, kind: str = "any") -> Case:
    tried = network(arch, cfg, seed)
    for module in tried.form.modules():
        if isinstance(module, nn.BatchNorm2d):
            module.weight.data.copy_(SCALES[kind](module.weight.data))
    return Case(arch, tried)


def opened(arch: str, plain: nn.Module) -> Case:
    form = capture(plain, (3, SIZE, SIZE), arch)
    if arch in registry.FIXED_GROUPS:
        form.captured.whole = frozenset()
    return Case(arch, Subject(plain, form, channels(form, form.captured.whole), arch))


def drawn(seed: int) -> tuple[Case, float, int]:
    """Draw a network, a percent and a base."""
    draw = random.Random(seed)
    arch = ARCHS[seed % len(ARCHS)]
    kind = draw.choice([*SCALES, "any", "any"])
    percent = draw.choice([draw.uniform(0, 0.97), draw.uniform(0, 0.97), *PERCENTS])
    return case(arch, widths(arch, draw), seed, kind), percent, draw.choice((1, 1, 1, 2, 3, 4, 8, 16))


def check_counts(chosen: PrunePlan) -> None:
    """F1, F2, F4, F5, F6: no layer is empty; widths are multiples of the base, or whole with a notice; shares are as printed."""
    for name, before, width in zip(chosen.names, chosen.before, chosen.widths, strict=True):
        assert min(before, 2) <= width <= before
        assert width % chosen.base == 0 or width == before, name
    assert 0 <= chosen.achieved < 1
    assert len(chosen.dropped) == sum(chosen.before) - sum(chosen.widths)


def check_ranks(found: Case, chosen: PrunePlan) -> None:
    """F1: in a family of interchangeable channels, no dropped channel scores higher than a kept one."""
    from prune.families import families, scores

    worth = scores(found.form, found.tried.found)
    for family in families(found.tried.found, worth):
        for kind in family.kinds.values():
            gone = [(worth[cls], cls) for cls in kind if cls in chosen.dropped]
            kept = [(worth[cls], cls) for cls in kind if cls not in chosen.dropped]
            assert not gone or not kept or max(gone) < min(kept)


@torch.no_grad()
def check_seed(seed: int) -> None:
    found, percent, base = drawn(seed)
    where = f"seed {seed}: {found.arch}, percent {percent}, base {base}"
    chosen = found.plan(percent, base)
    check_counts(chosen)
    check_ranks(found, chosen)
    silent, small = found.cut(chosen)
    x = torch.randn(2, 3, SIZE, SIZE, dtype=torch.float64)
    assert error(silent(x), small(x)) <= BOUND, where  # F8
    cfg = registry.widths(found.arch, small)
    if cfg is not None:  # F10: the cfg alone says every shape
        again = models.build(found.arch, cfg, **getattr(found.plain, "arch_args", {})).double()
        again.load_state_dict(small.state_dict())
        assert torch.equal(small(x), again.eval()(x)), where
    if percent == 0 and base == 1:
        assert all(map(torch.equal, small.state_dict().values(), found.form.state_dict().values())), where


@pytest.mark.parametrize("seed", range(SEEDS))
def test_every_promise(seed: int) -> None:
    check_seed(seed)


@pytest.mark.slow
def test_every_promise_on_300_networks() -> None:
    for seed in range(SEEDS, SEEDS + 300):
        check_seed(seed)


def test_scales_that_tell_nothing_apart_are_noticed() -> None:
    """F1: the command's warning depends on this."""
    model = case("nin", [5] * 8, 0).form
    assert looks_sparse(gammas(model))
    for spread, sparse in ((0.0, False), (0.9e-3, False), (1.1e-3, True)):
        for _, gate in gates(model):
            gate.weight.data.fill_(1)
            gate.weight.data[0] = -1 - spread  # size counts, not sign
        assert looks_sparse(gammas(model)) == sparse


@pytest.mark.parametrize("value", [float("nan"), float("inf"), -float("inf")])
@pytest.mark.parametrize("importance", ["bn", "l1"])
def test_a_score_that_is_not_finite_is_refused(importance: str, value: float) -> None:
    """F3."""
    found = case("slimming", [4, 6, 8], 3)
    layer = found.form.block2.bn if importance == "bn" else found.form.block2.conv
    layer.weight.data[-1] = value
    with pytest.raises(UserError, match=r"block2\.conv has non-finite scores") as fault:
        planning.plan(found.tried, 0.1, 1, importance)
    assert fault.value.code == BAD_CHECKPOINT


@pytest.mark.parametrize(
    "arch",
    [
        pytest.param(arch, marks=pytest.mark.slow if arch in ("nin_3x3", "separable") else ())
        for arch in ARCHS
        if arch != "nin_gc"
    ],
)
def test_a_larger_percent_keeps_a_part_of_what_a_smaller_one_keeps(arch: str) -> None:
    """F11: for every network whose groups do not restrict the choice, with base 1. An emptied layer keeps its best channels."""
    found = case(arch, widths(arch, random.Random(5)), 5)
    more, fewer = (found.plan(p) for p in (0.3, 0.6))
    assert more.dropped <= fewer.dropped


@pytest.mark.parametrize("arch", [pytest.param("nin", marks=pytest.mark.slow), "separable", residual.ARCH])
def test_pruned_trained_and_pruned_again(arch: str) -> None:
    """F9: the second pruning starts from the first one's widths, and both pass the same proof."""
    found = case(arch, widths(arch, random.Random(43)), 3)
    chosen = found.plan(0.3)
    once = found.cut(chosen)[1].train()
    optimizer = torch.optim.SGD(once.parameters(), 0.05)
    for _ in range(3):
        once(torch.randn(4, 3, SIZE, SIZE, dtype=torch.float64)).square().mean().backward()
        optimizer.step()
    second = opened(arch, once.eval())
    again = second.plan(0.3)
    assert again.before == chosen.widths
    x = torch.randn(2, 3, SIZE, SIZE, dtype=torch.float64)
    with torch.no_grad():
        silent, small = second.cut(again)
        assert error(silent(x), small(x)) <= BOUND


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


@pytest.mark.parametrize(
    "archs",
    [
        ("slimming", residual.ARCH),
        pytest.param(("nin", "nin_gc", "separable_wide", "slimming"), marks=pytest.mark.slow),
    ],
)
def test_a_fresh_process_reads_back_the_pruned_network_bit_for_bit(archs: tuple[str, ...], tmp_path: Path) -> None:
    """F10: a strict load from the file alone."""
    info = DataInfo("digits", "digits", 10, 8, (0.5,) * 3, (0.25,) * 3)
    paths, expected = [], []
    for number, arch in enumerate(archs):
        found = case(arch, widths(arch, random.Random(number)), number)
        small = found.cut(found.plan(0.5))[1].float()
        small.cfg = registry.widths(arch, small) or widths(arch, random.Random(number))
        path = tmp_path / f"{number}.pth"
        stages = (Train(), Prune(percent=0.5, base=1, cfg_before=widths(arch, random.Random(number))))
        arguments = {"classes": 10, **getattr(found.plain, "arch_args", {})}
        checkpoint.save(
            path,
            checkpoint.make(small, arch, arguments, info, Metrics(1.0), stages, Origin(("x",), 1)),
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
