"""--spare: layers that keep all channels at any scales, by name or by pattern."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from torch import nn

from engine.checkpoint.format import Checkpoint, load
from engine.errors import USAGE, UserError
from models.graph.surgery.narrow import masked, narrowed
from prune import plan as planning
from prune.spare import spared
from prune.widths import Subject
from tests.conftest import SMALL, assert_refused
from tests.tools import cases
from tests.tools.planned import tried, with_scales

OWN = ("--arch", "tests.tools.cases:Residual")


@pytest.mark.parametrize(
    ("name", "pattern", "count"),
    [
        ("Residual", "c1", 24),
        ("Residual", "stem.0", 16),
        ("Residual", "c2", 16),  # the same stream
        ("Residual", "c[12]", 40),
        ("Residual", "short.*", 32),
        ("mobilenet_v1", "1.0", 16),  # a depthwise layer: its channels are those of the layer before it
        ("Transposed", "up", 24),  # its rows are axis 1
        ("flatten_linear", "7", 48),
    ],
)
def test_a_spared_layer_fixes_what_it_gives(name: str, pattern: str, count: int) -> None:
    network = tried(getattr(cases, name)())
    found = spared(network.form, network.found, [pattern])
    assert sum(why == "spared" for why in found.fixed.values()) == count
    assert {cls for cls, why in found.fixed.items() if why != "spared"} == set(network.found.fixed)


def test_what_is_spared_stays_and_the_rest_is_cut_exactly() -> None:
    torch.manual_seed(0)
    model = with_scales(cases.Residual(), 1).double()
    nn.init.constant_(model.n1.weight, 1e-9)  # would be dropped first
    network = tried(model)
    assert next(p for p in zip(*_widths(planning.plan(network, 0.5)), strict=True) if p[0] == "c1")[1] < 24
    open_ = spared(network.form, network.found, ["c1"])
    plan = planning.plan(Subject(model, network.form, open_, "net"), 0.5)
    assert plan.names == ("stem.0", "short.0")
    assert 1 - sum(plan.widths) / (16 + 32) == plan.achieved == 0.5  # of the channels that can be pruned
    small = narrowed(model, network.form, network.found, plan.dropped, "net")
    assert small.get_parameter("c1.weight").shape[0] == 24
    assert small.get_parameter("stem.0.weight").shape[0] == plan.widths[0] < 16
    x = torch.randn(2, 3, 32, 32, dtype=torch.float64)
    with torch.no_grad():
        expected = masked(network.form, network.found, plan.dropped)(x)
        assert (expected - small(x)).abs().max() <= 1e-10 * expected.abs().max()


def _widths(plan: planning.PrunePlan) -> tuple[tuple[str, ...], tuple[int, ...]]:
    return plan.names, plan.widths


@pytest.mark.parametrize(
    ("pattern", "words", "hint"),
    [
        ("short.1", "--spare 'short.1' matches no convolution or linear layer", "did you mean short.0?"),
        ("n1", "--spare 'n1' matches no convolution or linear layer", "the layers are stem.0, c1, c2, c3, "),
        ("*", "--spare leaves no channel to cut", "fewer"),
    ],
)
def test_patterns_that_name_nothing_or_everything_are_refused(pattern: str, words: str, hint: str) -> None:
    network = tried(cases.Residual())
    with pytest.raises(UserError) as fault:
        spared(network.form, network.found, ["c1", pattern])
    assert (fault.value.code, str(fault.value)) == (USAGE, words)
    assert hint in fault.value.hint


def test_the_command_says_what_it_spares(command) -> None:
    command("prune.train", "-sr", "--s", "0.01", *OWN, *SMALL)
    words = ("prune.normal_regular", "--percent", "0.5", *OWN, "--cpu")
    done = command(*words, "--spare", "c1", "--spare", "shor*")
    assert done.code == 0, done.err
    assert "notice: 56 channels cannot be cut: spared" in done.err
    file = load(Path(done.path))
    assert isinstance(file, Checkpoint)
    assert file.history[-1].words() == "pruned 50 %, without c1, shor*"
    assert len(file.state_dict["c1.weight"]) == 24
    assert len(file.state_dict["c3.weight"]) == 32
    assert len(file.state_dict["stem.0.weight"]) == 8
    for name in ("models_save/Residual_prune.pth",):
        Path(name).unlink()
    assert_refused(command(*words, "--spare", "stem.1"), USAGE, "--spare 'stem.1' matches no")
    assert not Path("models_save/Residual_prune.pth").exists()
