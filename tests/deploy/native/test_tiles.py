"""Layers in tiles of a matrix unit: every way to cut windows, for any position of a tile's places."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given, settings

from deploy.native import compiler, steps, tiles
from deploy.native.executor import Native
from deploy.operations.base import Matrix
from deploy.operations.layers import Convolution
from deploy.operations.places import Reshape
from deploy.program import Program
from deploy.reference.run import run
from models.layers.quantizers.base import Signs, Steps
from tests.deploy import layer_chains as chains
from tests.deploy.native.sized import FAST, check, programs
from tests.tools.house import ROOT

BYTES = chains.quantize(Steps(20.0, 1 / 20, 0, 255))
ODD = Matrix(chains.codes(2 * chains.drawn(-128, 127, 40, 30, 2, 3) + 1), np.full(40, 1e-4, np.float32))

CASES: dict[str, tuple[tuple[int, ...], list[Any], dict[str, int]]] = {
    "rows of places": ((64, 5, 37), [chains.conv(50, 64, 3, 3, **chains.SAME)], {"depth": 64, "joined": 1}),
    "strides": ((40, 9, 70), [chains.conv(33, 40, 3, 2, stride=(2, 3), dilation=(1, 2))], {"depth": 40, "count": 6}),
    "narrow pictures": ((40, 9, 7), [chains.conv(64, 40, 3, 3, **chains.SAME)], {"depth": 60, "count": 6}),
    "rows without a gap": ((64, 9, 7), [chains.conv(20, 64, 1, 1)], {"depth": 64, "count": 1}),
    "pieces that overlap": ((70, 4, 40), [chains.conv(64, 70, 1, 1)], {"depth": 36, "count": 2}),
    "three channels": ((3, 30, 40), [chains.conv(64, 3, 7, 7, stride=(2, 2))], {"depth": 21, "joined": 3, "count": 9}),
    "a piece too few": ((3, 9, 20), [chains.conv(64, 3, 5, 5)], {"depth": 15, "joined": 4, "count": 8}),
    "one channel": ((1, 30, 20), [chains.conv(64, 1, 5, 5)], {"depth": 5, "joined": 5, "count": 5}),
    "groups": ((105, 9, 20), [chains.conv(60, 35, 3, 3, groups=3)], {"depth": 36, "groups": 3}),
    "groups of few": ((27, 9, 9), [chains.conv(300, 9, 3, 3, groups=3)], {"depth": 9, "joined": 7, "count": 14}),
    "more weights than are held": ((700, 5, 9), [chains.conv(90, 700, 3, 3)], {"depth": 64, "outputs": 96}),
    "odd weights": ((30, 7, 20), [(Convolution, {"matrix": ODD})], {"factor": 2}),
    "signs": ((64, 7, 20), [chains.conv(70, 64, 2, 2), chains.quantize(Signs(0.5)), chains.conv(9, 70, 1, 1, most=1)], {}),
    "shorts": ((64, 7, 20), [chains.conv(70, 64, 2, 2), chains.quantize(Steps(90.0, 1 / 90, -300, 300))], {}),
    "codes": ((64, 7, 20), [chains.conv(70, 64, 2, 2), BYTES], {}),
}  # fmt: skip


@pytest.mark.parametrize("name", CASES)
def test_layers(name: str, tiled: str) -> None:
    shape, layers, told = CASES[name]
    assert_in_tiles(chains.program(BYTES, *layers, shape=shape), tiled, told)


def test_linear_layers_over_rows(tiled: str) -> None:
    made = chains.program((Reshape, {"shape": (36, 90)}), BYTES, chains.linear(50, 90), shape=(36, 1, 90))
    assert_in_tiles(made, tiled, {"depth": 48, "count": 2})


def assert_in_tiles(made: Program, tiled: str, told: dict[str, int]) -> None:
    """Check that one layer uses tiles with these settings, and that it gives the reference's numbers."""
    x = chains.given(made.picture)[:2]
    native, expected = Native(made, tiled), run(made, x)
    (step,) = (step for step in native.plan.steps if step.operation == steps.LAYER)
    assert step.what == 2
    assert {key: getattr(step, key) for key in told} == told
    before = torch.get_num_threads()
    try:
        for threads in (1, 2, 3):  # two pictures in parallel, or the rows of each
            torch.set_num_threads(threads)
            assert torch.equal(native(x), expected)
    finally:
        torch.set_num_threads(before)


@settings(max_examples=150, derandomize=True, **FAST)
@given(made=programs(side=24))
def test_any_layer_can_come_in_tiles(made: Program, tiled: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """Tiles are used even where they are slower."""
    cut_anyhow(monkeypatch)
    check(made, tiled)


@pytest.mark.slow
@settings(max_examples=1000, **FAST)
@given(made=programs(side=24))
def test_a_thousand_layers(made: Program, tiled: str, monkeypatch: pytest.MonkeyPatch) -> None:
    cut_anyhow(monkeypatch)
    check(made, tiled)


def cut_anyhow(monkeypatch: pytest.MonkeyPatch) -> None:
    """Make every layer on bytes use tiles, cut in the last of its ways."""
    monkeypatch.setattr(tiles, "cut", lambda weight, form, source, _: tiles.ways(weight, form, source)[-1])


def test_few_places_and_few_inputs_stay_in_blocks(tiled: str) -> None:
    linear = chains.program((Reshape, {"shape": (504,)}), BYTES, chains.linear(30, 504))
    grouped = chains.program(BYTES, chains.conv(32, 2, 1, 1, groups=16), shape=(32, 9, 20))
    for made in (linear, grouped):
        told = [step.what for step in Native(made, tiled).plan.steps if step.operation == steps.LAYER]
        assert told == [1]


REFUSED = """
from deploy.native.executor import Native
from tests.deploy.native.test_tiles import CASES, chains, BYTES
made = chains.program(BYTES, *CASES["rows of places"][1], shape=(64, 5, 37))
native = Native(made, "AMX emulated")
native.plan.steps[1].depth = 68
native(chains.given((64, 5, 37)))
"""


def test_the_emulation_refuses_what_the_unit_would(tiled: str) -> None:
    if tiled != "AMX emulated":
        pytest.skip("the unit itself ends a process without a word")
    done = subprocess.run([sys.executable, "-c", REFUSED], cwd=ROOT, capture_output=True, text=True, check=False)
    assert done.returncode < 0
    assert "AMX emulated: a tile has at most 16 rows of at most 64 bytes" in done.stderr


def test_it_is_never_taken_where_it_does_not_run(engine: compiler.Engine) -> None:
    here = compiler.instruction_sets()
    assert engine.kernels != "AMX emulated"
    flags = Path("/proc/cpuinfo").read_text() if Path("/proc/cpuinfo").exists() else ""
    assert "AMX" not in here or " amx_int8" in flags
