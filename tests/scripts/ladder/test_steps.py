"""The steps of the ladder: their commands as stored in ladders, and the consequences of a step."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from scripts import combinations
from scripts.ladder import fill, steps
from scripts.ladder.runner import Node
from scripts.ladder.steps import STEPS
from tests.tools.house import ROOT
from tests.tools.ladder import options
from tests.tools.readme import parser

LINES = {
    "nin": "prune.train --arch nin",
    "nin_3x3": "prune.train --arch nin_3x3",
    "nin_gc_plain": "prune.train --arch nin_gc --cfg 192,160,96,192,192,192,192,192",
    "nin_gc": "prune.train --arch nin_gc",
    "sparse": "prune.train --arch nin -sr --s 0.0001",
    "prune50": "prune.normal_regular --percent 0.5 --model {sparse}",
    "prune50_refine": "prune.train --refine {prune50}",
    "prune50_x8": "prune.normal_regular --percent 0.5 --normal_regular 8 --model {sparse}",
    "prune50_x8_refine": "prune.train --refine {prune50_x8}",
    "prune50_x16": "prune.normal_regular --percent 0.5 --normal_regular 16 --model {sparse}",
    "prune50_x16_refine": "prune.train --refine {prune50_x16}",
    "prune50_scratch": "prune.train --from_scratch {prune50}",
    "gc_sparse": "prune.train --arch nin_gc -sr --s 0.001",
    "gc_prune40": "prune.gc --percent 0.4 --model {gc_sparse}",
    "gc_prune40_refine": "prune.train --refine {gc_prune40}",
    "w8a8": "quant.wqaq --Wbits 8 --Abits 8 --refine {nin}",
    "w4a8": "quant.wqaq --Wbits 4 --Abits 8 --refine {nin}",
    "w4a4": "quant.wqaq --Wbits 4 --Abits 4 --refine {nin}",
    "w2a2": "quant.wqaq --Wbits 2 --Abits 2 --refine {nin}",
    "int8_q0_fold0": "quant.wqaq --q_type 0 --bn_fold 0 --refine {nin}",
    "int8_q0_fold1": "quant.wqaq --q_type 0 --bn_fold 1 --refine {nin}",
    "int8_q1_fold0": "quant.wqaq --q_type 1 --bn_fold 0 --refine {nin}",
    "int8_q1_fold1": "quant.wqaq --q_type 1 --bn_fold 1 --refine {nin}",
    "ptq_minmax": "quant.ptq --calibrate minmax --model {nin}",
    "ptq_percentile": "quant.ptq --calibrate percentile --model {nin}",
    "ptq_mse": "quant.ptq --calibrate mse --model {nin}",
    "ptq_kl": "quant.ptq --calibrate kl --model {nin}",
    "wba32": "quant.wbwtab --W 2 --A 32 --refine {nin}",
    "wta32": "quant.wbwtab --W 3 --A 32 --refine {nin}",
    "wbab": "quant.wbwtab --W 2 --A 2 --refine {nin}",
    "wbab_no_scale": "quant.wbwtab --W 2 --A 2 --no-scale --refine {nin}",
    "wtab": "quant.wbwtab --W 3 --A 2 --refine {nin}",
    "wtab_no_scale": "quant.wbwtab --W 3 --A 2 --no-scale --refine {nin}",
    "prune50_wtab": "quant.wbwtab --W 3 --A 2 --refine {prune50_refine}",
    "gc_prune40_wtab": "quant.wbwtab --W 3 --A 2 --refine {gc_prune40_refine}",
    "depthwise_standard": "prune.train --arch nin --cfg 32,64,128,256,256,256,512,1024",
    "depthwise_separable": "prune.train --type 2",
    "depthwise_separable_wide": "prune.train --arch separable_wide",
}
"""Commands in the ladder.json of an older ladder: with any other command it would be refused."""


def test_the_lines_are_those_that_ladders_have_stored() -> None:
    assert {name: STEPS[name].line for name in LINES} == LINES
    for path in (ROOT / "results").glob("*/ladder.json"):
        stored = json.loads(path.read_text()).items()
        said = {key.removeprefix("step "): line for key, line in stored if key.startswith("step ")}
        assert said.keys() >= LINES.keys(), path
        assert said == {name: STEPS[name].line for name in said}, path


@pytest.mark.parametrize("name", STEPS)
def test_every_step_is_a_command_a_user_could_type(name: str) -> None:
    files = {step: f"{step}.pth" for step in STEPS}
    module, *argv = STEPS[name].words(files)
    assert [module, *argv] == STEPS[name].line.format_map(files).split()
    parser(module).parse_args(argv)
    assert STEPS[name].name == name


def test_a_chain_starts_with_a_step_that_reads_nothing() -> None:
    assert [step.name for step in steps.chain("gc_prune40_wtab")] == [
        "gc_sparse", "gc_prune40", "gc_prune40_refine", "gc_prune40_wtab",
    ]  # fmt: skip
    assert [step.name for step in steps.chain("nin")] == ["nin"]
    for name in STEPS:
        first, *others = steps.chain(name)
        assert (first.parent, first.reads) == (None, None)
        assert all(step.parent and step.reads for step in others)


def test_refining_takes_half_the_epochs_and_pruning_none() -> None:
    names = ("nin", "prune50_refine", "w8a8", "prune50_scratch", "prune50", "ptq_kl")
    assert [STEPS[name].epochs(41) for name in names] == [41, 20, 20, 41, None, None]
    assert STEPS["w8a8"].epochs(1) == 1
    assert STEPS["nin"].epochs(None) is None


def test_a_step_is_told_what_the_ladder_is_told() -> None:
    """The checkpoints record these words."""
    folder = Path("runs/results/digits/s2")
    plain = "--dataset digits --data data --seed 2 --device cpu --save"
    files = [f"{folder}/{name}.pth" for name in ("nin", "w8a8", "ptq_kl")]
    said = [" ".join(fill.command(options(), Node(folder, 2, name))) for name in ("nin", "w8a8", "ptq_kl")]
    assert said == [
        f"prune.train --arch nin {plain} {files[0]} --run_dir {folder}/nin --precision auto",
        f"quant.wqaq --Wbits 8 --Abits 8 --refine {files[0]} {plain} {files[1]} "
        f"--run_dir {folder}/w8a8 --precision auto",
        f"quant.ptq --calibrate kl --model {files[0]} {plain} {files[2]}",
    ]
    more = options(
        num_workers=0, image_size=8, val=100, flip=False, epochs=9, recipe="original", precision="bf16", crop="shift"
    )
    tail = "--num_workers 0 --image_size 8 --crop shift --val 100 --no-flip --run_dir {}/{} --epochs {} --recipe seed{}"
    said = [" ".join(fill.command(more, Node(folder, 2, name))) for name in ("nin", "w8a8")]
    assert said[0].endswith(tail.format(folder, "nin", 9, " --precision bf16"))
    assert said[1].endswith(tail.format(folder, "w8a8", 4, " --precision bf16"))


def test_the_combinations_are_steps_of_the_ladder_on_another_file() -> None:
    lines = {label: combinations._line(STEPS[step], 2, "F.pth") for label, step in combinations.FAMILIES}
    assert len(lines) == 16
    assert lines["dorefa 4"] == "quant.wqaq --Wbits 4 --Abits 4 --epochs 2 --refine F.pth"
    assert lines["ternary W no scale, binary A"] == "quant.wbwtab --W 3 --A 2 --no-scale --epochs 2 --refine F.pth"
    assert lines["INT8 q0 fold1"] == "quant.wqaq --q_type 0 --bn_fold 1 --epochs 2 --refine F.pth"
    assert lines["PTQ mse"] == "quant.ptq --calibrate mse --model F.pth"
