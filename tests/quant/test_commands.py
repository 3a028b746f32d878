"""The quantizing commands from end to end: default paths, written files, and errors that change nothing."""

from __future__ import annotations

import json
from collections.abc import Callable
from itertools import product
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch

import models
from engine.checkpoint import archive
from engine.checkpoint.format import Checkpoint
from engine.system import files
from quant.quantizer_spec import quantizer
from quant.spec import QuantSpec
from tests.conftest import NARROW, SMALL, assert_refused
from tests.tools.contents import raw
from tests.tools.contract import FAST, assert_judged_right, contract

Command = Callable[..., SimpleNamespace]
LETTER = {2: "b", 3: "t", 32: "32"}

TRAINED = [
    *(("quant.wbwtab", f"--W {w} --A {a}", f"w{LETTER[w]}a{LETTER[a]}") for w, a in product(LETTER, LETTER)),
    *(("quant.wqaq", f"--q_type {q} --bn_fold {f}", f"int8_q{q}_fold{f}") for q, f in product((0, 1), (0, 1))),
    ("quant.wbwtab", "--W 3 --ends int8", "wtab_ends"),
    ("quant.wqaq", "--Wbits 8 --Abits 8", "w8a8"),
    ("quant.wqaq", "--Wbits 4 --Abits 4 --ends int8", "w4a4_ends"),
    ("quant.wqaq", "--bn_fold 1 --ends int8", "int8_q1_fold1_ends"),
    ("quant.wqaq", "--Wbits t --Abits 4", "wta4"),
    ("quant.wqaq", "--Wbits 32 --Abits 2", "w32a2"),
    ("quant.wqaq", "--quantizer affine --Wbits 4 --no-per_channel", "intw4a8_q1_fold0_tensor"),
]
TRICKS = "--W 3 --A 2 --gap --no-scale --ste soft --wste saturate --order cbap --bn_momentum 0.01"
PTQ = [f"--calibrate {method}" for method in ("minmax", "percentile", "mse", "kl")]


@pytest.mark.parametrize(("module", "line", "name"), TRAINED, ids=lambda v: v.removeprefix("quant."))
def test_training_from_a_refined_file(refined: Command, module: str, line: str, name: str) -> None:
    result = refined(module, *line.split(), "--refine", *FAST)
    assert result.code == 0, result.err
    assert result.err == ""
    assert result.path == f"models_save/nin_{name}.pth"
    content = contract(result.path, "train", "prune", "refine", "quantize")
    assert content["provenance"]["parent_sha256"] == files.sha256(Path("models_save/nin_refine.pth"))
    assert content["cfg"] == torch.load("models_save/nin_refine.pth", weights_only=True)["cfg"]
    assert_judged_right(refined, result.path)


def test_every_trick_reaches_the_file(refined: Command) -> None:
    path = refined("quant.wbwtab", *TRICKS.split(), "--refine", *FAST).path
    content = contract(path, "train", "prune", "refine", "quantize")
    weight = quantizer("t", scale=False, ste="saturate", gap=True)
    spec = QuantSpec(weight, quantizer("b", ste="soft"), ("block1.conv", "block9.conv"), "cbap", 0.01)
    assert QuantSpec.from_dict(content["transforms"][-1]["spec"]) == spec
    assert content["state_dict"]["block2.conv.weight_quantizer.previous"].unique().tolist() == [-1, 0, 1]
    assert_judged_right(refined, path)


@pytest.mark.parametrize(
    "line", [*PTQ, "--calibrate mse --ends int8", "--calibrate kl --Wbits 4 --Abits 4 --q_type 0 --no-per_channel"]
)
def test_quantizing_without_training(refined: Command, line: str) -> None:
    result = refined("quant.ptq", *line.split(), "--calibration_pictures", "100", "--cpu")
    assert result.code == 0, result.err
    other = (
        "_w4a4_q0_tensor" if "--Wbits" in line else "_ends" * ("--ends" in line)
    )  # non-default settings are in the name
    assert result.path == f"models_save/nin_ptq_{line.split()[1]}{other}.pth"
    content = contract(result.path, "train", "prune", "refine", "quantize")
    assert (content["transforms"][-1]["calibrate"], content["transforms"][-1]["pictures"]) == (line.split()[1], 100)
    old = torch.load("models_save/nin_refine.pth", weights_only=True)["state_dict"]
    assert all(torch.equal(content["state_dict"][key], value) for key, value in old.items())  # nothing was trained
    seen = {k: v.item() for k, v in content["state_dict"].items() if k.endswith(".seen")}
    assert seen == {f"block{n}.conv.input_quantizer.seen": 1 for n in range(2, 10)}
    assert_judged_right(refined, result.path)


def test_from_scratch_by_another_arch(command: Command) -> None:
    result = command("quant.wqaq", "--arch", "nin_gc", "--cfg", "8,8,16,16,8,32,32,16", *FAST)
    assert result.path == "models_save/nin_gc_w8a8.pth"
    content = contract(result.path, "quantize")
    assert (content["arch"], content["provenance"]["parent"]) == ("nin_gc", None)
    assert_judged_right(command, result.path)


@pytest.mark.parametrize(
    ("module", "flags"),
    [("quant.wqaq", ["--refine", *FAST]), ("quant.wbwtab", ["--refine", *FAST]), ("quant.ptq", ["--cpu"])],
)
def test_json_is_one_object(refined: Command, module: str, flags: list[str]) -> None:
    result = refined(module, *flags, "--save", "x.pth", "--json")
    shown = json.loads(result.out)
    assert shown["path"] == "x.pth"
    assert shown["accuracy"] == contract("x.pth", "train", "prune", "refine", "quantize")["best_acc"]


BAD_FLAGS = [
    *(("quant.wbwtab", line) for line in ("--W 4", "--W b", "--A 1", "--W 2.0", "--gap", "--gap --W 32", "--wste soft", "--order abcp")),
    *(("quant.wbwtab", line) for line in ("--bn_momentum 0", "--ste magic", "--refine --cfg 8,8,8,8,8,8,8,8")),
    *(("quant.wqaq", line) for line in ("--Wbits 9", "--Abits 1", "--Abits bb", "--q_type 2", "--bn_fold 2", "--quantizer int8")),
    *(("quant.wqaq", f"--quantizer dorefa {line}") for line in ("--bn_fold 1", "--bn_fold 0", "--q_type 0", "--no-per_channel")),
    *(("quant.wqaq", f"--ends int8 {line}") for line in ("--quantizer lsq", "--Abits 32", "--q_type 1 --Abits 32")),
    ("quant.wqaq", "--sums int8 --Abits 32"),
    *(("quant.wbwtab", line) for line in ("--ends int8 --A 32", "--ends int4")),
    *(("quant.wqaq", f"--q_type 1 {line}") for line in ("--Wbits t", "--Abits b", "--Wbits 32")),
    *(("quant.ptq", line) for line in ("--calibration_pictures 0", "--calibrate entropy", "--Wbits 32", "--Abits 1", f"--cfg {NARROW}")),
    *((module, "--cfg 8,8") for module in ("quant.wqaq", "quant.wbwtab")),
    *((module, "--arch nin_gc --cfg 9,9,9,9,9,9,9,9") for module in ("quant.wqaq", "quant.wbwtab")),
]  # fmt: skip


@pytest.mark.parametrize(("module", "line"), BAD_FLAGS, ids=lambda v: v.removeprefix("quant."))
def test_flags_that_cannot_be_meant(command: Command, workplace: Path, module: str, line: str) -> None:
    training = () if module == "quant.ptq" else ("--epochs", "1")
    flags = ("--dataset", "digits", "--image_size", "8", "--cpu", "--quiet", "--save", "out/x.pth", *training)
    assert_refused(command(module, *flags, *line.split()), 2)
    assert not (workplace / "out/x.pth").exists()


def not_a_number(content: Checkpoint) -> None:
    content["state_dict"]["block3.conv.weight"][1, 2] = float("nan")


def another_shape(content: Checkpoint) -> None:
    for part in ("weight", "bias", "running_mean", "running_var"):
        content["state_dict"][f"block3.bn.{part}"] = torch.ones(3)


def five_classes(content: Checkpoint) -> None:
    content["arch_args"]["classes"] = 5
    content["state_dict"] = models.build("nin", content["cfg"], 5).state_dict()


def quantized(content: Checkpoint) -> None:
    content["transforms"].append({"stage": "quantize", "spec": {}})


def merged(content: Checkpoint) -> None:
    content["transforms"].append({"stage": "merge"})


DAMAGE: list[tuple[Callable[[Any], None], str]] = [
    (not_a_number, "block3.conv.weight holds"), (another_shape, "block3.bn.weight has shape (3,)"),
    (five_classes, "digits has 10 classes, but the network has 5"), (quantized, "after stage 'quantize'"), (merged, "after stage 'merge'"),
]  # fmt: skip


@pytest.mark.parametrize(("damage", "words"), DAMAGE, ids=lambda v: getattr(v, "__name__", ""))
def test_files_that_cannot_be_quantized(refined: Command, damage: Callable, words: str) -> None:
    content = raw(Path("models_save/nin_refine.pth"))
    damage(content)
    archive.save(Path("bad.pth"), content)
    Path("out.pth").write_bytes(b"what was there before")
    save = ("--save", "out.pth")
    assert_refused(refined("quant.wqaq", "--refine", "bad.pth", *FAST, *save), 3, words)
    assert_refused(refined("quant.wbwtab", "--refine", "bad.pth", *FAST, *save), 3, words)
    assert_refused(refined("quant.ptq", "--model", "bad.pth", "--cpu", *save), 3, words)
    assert Path("out.pth").read_bytes() == b"what was there before"
    assert sorted(p.name for p in Path().iterdir() if p.is_file()) == ["bad.pth", "out.pth"]


def test_a_missing_file_names_the_command_that_makes_it(command: Command) -> None:
    for module, flags in (("quant.wqaq", ["--refine"]), ("quant.wbwtab", ["--refine"]), ("quant.ptq", [])):
        result = command(module, *flags)
        assert_refused(result, 3, "models_save/nin_refine.pth: no such file")
        assert "python -m prune.train --refine" in result.err
    assert_refused(command("quant.wbwtab", "--evaluate"), 3, "models_save/nin_wbab.pth: no such file")


def test_a_file_is_judged_as_what_it_is(refined: Command) -> None:
    """The accuracy of a float file would not answer a question about 2 bits."""
    path = refined("quant.wqaq", "--Wbits", 8, "--Abits", 8, "--refine", *SMALL).path
    command = refined
    assert command("quant.wqaq", "--evaluate", path, "--cpu").out.startswith("w8a8: test accuracy")
    assert command("quant.wbwtab", "--evaluate", "models_save/nin_refine.pth", "--cpu").out.startswith(
        "float: test accuracy"
    )
    assert command("quant.wqaq", "--Wbits=8", "--Abits", 8, "--evaluate", "--cpu").code == 0
    for line, made, asked in (
        (("--Wbits", 2), "models_save/nin_refine.pth", "float, which contradicts --Wbits"),
        (("--Abits=4",), path, "w8a8, which contradicts --Abits"),
    ):
        assert_refused(command("quant.wqaq", *line, "--evaluate", made), 2, f"{made} is {asked}")


def test_quantized_files_are_not_pruned_or_refined(refined: Command) -> None:
    path = refined("quant.ptq", "--cpu").path
    before = Path(path).read_bytes()
    for module, flag in (("prune.normal_regular", "--model"), ("prune.gc", "--model"), ("prune.train", "--refine")):
        assert_refused(refined(module, flag, path, "--cpu", "--save", "x.pth"), 3, "after stage 'quantize'")
    assert not Path("x.pth").exists()
    assert Path(path).read_bytes() == before


@pytest.mark.parametrize(
    ("flags", "momentum"),
    [
        ((), None),
        (("--recipe", "seed"), 0.01),
        (("--refine",), 0.1),
        (("--refine", "--train_batch_size", "8"), 4 / 180),
        (("--refine", "--train_batch_size", "3"), 0.01),
    ],
    ids=["fresh", "seed", "12 steps", "180 steps", "479 steps"],
)
def test_the_momentum_of_int8_statistics(refined, flags: tuple[str, ...], momentum: float | None) -> None:
    """Statistics that start from nothing, and those of epochs with few steps, move faster."""
    fresh = () if "--refine" in flags else ("--cfg", NARROW)
    done = refined("quant.wqaq", "--q_type", 1, *SMALL, *flags, *fresh)
    assert done.code == 0, done.err
    assert raw(Path(done.path))["transforms"][-1]["spec"]["bn_momentum"] == momentum
