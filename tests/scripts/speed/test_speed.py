"""The variants that scripts.benchmark compares give equal results, and its tables describe what was measured."""

from __future__ import annotations

import json
from collections.abc import Callable

import pytest
import torch

from deploy.racing import clock
from models.layers.conv_q import QuantConv2d
from scripts.speed import growth, measure, ours, reference
from scripts.speed.options import VARIANTS
from scripts.speed.variants import SPECS, network

CPU = torch.device("cpu")


@pytest.mark.parametrize("variant", [name for name in SPECS if name != "float"])
def test_the_textbook_layers_are_the_same_layers(variant: str) -> None:
    """Textbook loops and products of numbers equal codes and scales, in fp64, where no code lies on an edge."""
    here, there = network("nin", 32, variant).double(), network("nin", 32, variant).double()
    layers = [(one, other) for one, other in zip(here.modules(), reference.plain(there, variant).modules(), strict=True)
              if isinstance(one, QuantConv2d)]  # fmt: skip
    assert len(layers) >= 7
    for one, other in layers:
        assert one.forward != other.forward
        x = torch.rand(3, one.in_channels, 7, 7, dtype=torch.float64)
        torch.testing.assert_close(one(x), other(x), rtol=1e-9, atol=1e-9)


@pytest.mark.parametrize("variant", SPECS)
def test_a_step_trains(variant: str) -> None:
    for how in ("fp32", "exact"):
        torch.manual_seed(1)
        model = network("nin", 32, variant)
        before = {n: p.detach().clone() for n, p in model.named_parameters()}
        step = ours.step_with(model, variant, 32, 8, CPU, how)
        for _ in range(2):  # the first pass may only set LSQ's steps
            step()
        assert sum(not torch.equal(before[n], p) for n, p in model.named_parameters()) > 20


def test_the_command_measures_all_in_turns(command: Callable, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(clock, "LEAST", 2)
    monkeypatch.setattr(clock, "WARM_UP", 1)
    monkeypatch.setattr(measure, "SETTLING", 0)
    words = (
        "--networks",
        "nin",
        "--variants",
        "binary",
        "--batch",
        "4",
        "--pictures",
        "10",
        "--seconds",
        "0",
    )
    done = command("scripts.benchmark", *words, "--cpu", "--json")
    assert done.code == 0, done.err
    found = json.loads(done.out)
    assert found["ceilings"]["fp32_gflops"] > 1
    assert {(r["what"], r["variant"], r["by"]) for r in found["rows"]} >= {
        ("training", "float", "textbook"), ("training", "binary", "textbook"), ("training", "binary", "here"),
        ("evaluation", "binary", "here"),
    }  # fmt: skip
    first = found["rows"][0]
    assert (first["variant"], first["by"], first["times_float"]) == ("float", "textbook", 1.0)
    assert all(r["ms"] > 0 and r["gflops"] > 0 for r in found["rows"])


def test_the_variants_of_the_flag_are_those_that_there_are() -> None:
    assert (*SPECS,) == VARIANTS


def test_growth_is_measured_up_to_100_times_the_weights(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(growth, "SIZES", (1, 2))
    small, large = growth.surgery()
    assert 3.5 < large["value"] / small["value"] < 4.5
    assert large["seconds"] > 0
