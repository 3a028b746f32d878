"""Merging and comparing from end to end: the chain with default paths, the parent found by its hash, and errors."""

from __future__ import annotations

import json
import re
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch

from engine.checkpoint import archive
from engine.system import files
from tests.conftest import NARROW, SMALL, assert_refused
from tests.tools.contents import raw
from tests.tools.contract import FAST, assert_judged_right, contract

Command = Callable[..., SimpleNamespace]
MERGE, COMPARE, PRUNED = "bn_merge.__main__", "bn_merge.compare", "models_save/nin_refine.pth"

MAKERS = {
    "nin_wbab": ("quant.wbwtab", "--W", "2", "--A", "2", "--refine", *FAST),
    "nin_wtab": ("quant.wbwtab", "--W", "3", "--A", "2", "--refine", "--no-scale", *FAST),
    "nin_wba32": ("quant.wbwtab", "--W", "2", "--A", "32", "--refine", *FAST),
    "nin_w32ab": ("quant.wbwtab", "--W", "32", "--A", "2", "--refine", *FAST),
    "nin_w8a8": ("quant.wqaq", "--Wbits", "8", "--Abits", "8", "--refine", *FAST),
    "nin_w2a4": ("quant.wqaq", "--Wbits", "2", "--Abits", "4", "--refine", *FAST),
    **{
        f"nin_int8_q{q}_fold{f}": ("quant.wqaq", "--q_type", str(q), "--bn_fold", str(f), "--refine", *FAST)
        for q in (0, 1)
        for f in (0, 1)
    },
    "nin_ptq_kl": ("quant.ptq", "--calibrate", "kl", "--cpu"),
    "nin_refine": (),
}


@pytest.fixture
def make(refined: Command) -> Callable[[str], str]:
    def maker(stem: str) -> str:
        path = refined(*MAKERS[stem]).path if MAKERS[stem] else f"models_save/{stem}.pth"
        assert path == f"models_save/{stem}.pth"
        return path

    return maker


SLOW = ("nin_wba32", "nin_w2a4", "nin_int8_q0_fold1", "nin_int8_q1_fold0")  # in between are fast tests


@pytest.mark.parametrize(
    "stem", [pytest.param(stem, marks=pytest.mark.slow) if stem in SLOW else stem for stem in MAKERS]
)
def test_any_file_is_merged_and_compared(refined: Command, make: Callable, stem: str) -> None:
    source = make(stem)
    result = refined(MERGE, "--model", source, "--cpu")
    assert result.code == 0, result.err
    assert result.err == ""
    assert result.path == f"models_save/{stem}_merged.pth"
    stages = ["train", "prune", "refine", *["quantize"] * (stem != "nin_refine"), "merge"]
    content = contract(result.path, *stages)
    assert content["provenance"]["parent_sha256"] == files.sha256(Path(source))
    assert not [key for key in content["state_dict"] if "running" in key or key.endswith("conv.weight")]
    kept = content["state_dict"]["block2.conv.codes"].dtype
    assert kept in ([torch.float32] if stem in ("nin_refine", "nin_w32ab") else [torch.int8, torch.int16])
    assert_judged_right(refined, result.path)

    exact = json.loads(refined(COMPARE, result.path, "--cpu", "--json", "--float64").out)
    assert (exact["pictures"], exact["agree"], exact["top2_gaps"]) == (360, 360, {})
    wide = stem.startswith(("nin_w8", "nin_int8", "nin_ptq"))  # with so many codes, fp32 rounding changes one
    assert 0 < exact["largest_logit_difference"] <= (0.05 if wide else 1e-5)
    assert (exact["fresh_agree"], exact["fresh_largest_logit_difference"] <= 1e-9) == (360, True)
    fp32 = json.loads(refined(COMPARE, result.path, "--cpu", "--json").out)
    assert fp32["accuracy"] == content["best_acc"]
    assert (
        fp32["accuracy_before"]
        == content["metrics"]["before_merge"]
        == torch.load(source, weights_only=True)["best_acc"]
    )
    assert fp32["agree"] == round(360 * content["metrics"]["agreement"]) == 360 - len(fp32["top2_gaps"])


def test_the_whole_chain_by_default_paths(command: Command) -> None:
    """No command is given the previous one's output path; every file holds its history."""
    lines = [
        ("prune.train", "-sr", "--cfg", NARROW, *SMALL), ("prune.normal_regular", "--percent", "0.3", "--cpu"),
        ("prune.train", "--refine", *SMALL), ("quant.wbwtab", "--refine", *FAST), (MERGE, "--W", "2", "--cpu"),
    ]  # fmt: skip
    parent = None
    for (module, *args), stem in zip(lines, ("preprune", "prune", "refine", "wbab", "wbab_merged"), strict=True):
        result = command(module, *args)
        assert result.code == 0, result.err
        assert result.path == f"models_save/nin_{stem}.pth"
        assert result.out.endswith(result.path + "\n")
        found = torch.load(result.path, weights_only=True)["provenance"]
        assert (found["parent"], found["parent_sha256"]) == (parent, parent and files.sha256(Path(parent)))
        parent = result.path
    result = command(COMPARE, "--cpu")
    assert result.code == 0
    assert result.out.startswith(
        "models_save/nin_wbab.pth against models_save/nin_wbab_merged.pth, fp32, 360 test pictures of digits\n"
    )
    assert "same answer   360 of 360 (100.00 %)" in result.out
    merged = command(MERGE, "--cpu").out  # --W 2 is the default
    assert re.match(
        r"models_save/nin_wbab\.pth: test accuracy (\d+\.\d\d %) -> \1 on digits \(360 pictures\); the same answer on 360 of them\n",
        merged,
    )
    assert merged.endswith("models_save/nin_wbab_merged.pth\n")


def test_what_can_be_merged_is_named_where_the_default_file_is_missing(refined: Command) -> None:
    for name in ("nin_w4a4", "nin_int8_q1_fold1", "nin_ptq_kl_bc", "nin_w4a4_merged"):
        Path(f"models_save/{name}.pth").touch()
    missing = refined(MERGE)
    assert_refused(missing, 3, "models_save/nin_wbab.pth: no such file")
    named = [f"take --model models_save/{name}.pth" for name in ("nin_int8_q1_fold1", "nin_ptq_kl_bc", "nin_w4a4")]
    assert f"hint: {', or '.join(named)}, or make it with: " in missing.err
    assert "int8" not in refined(MERGE, "--W", "32").err


def test_the_default_file_goes_by_W(refined: Command, make: Callable) -> None:
    make("nin_wtab")
    assert refined(MERGE, "--W", "3", "--cpu").path == "models_save/nin_wtab_merged.pth"
    missing = refined(MERGE, "--W", "32")
    assert_refused(missing, 3, "models_save/nin_w32ab.pth: no such file")
    assert "python -m quant.wbwtab --W 32 --A 2" in missing.err
    assert_refused(refined(COMPARE), 3, "models_save/nin_wbab_merged.pth: no such file")
    found = refined(COMPARE, "--W", "3", "--cpu")
    assert found.out.startswith("models_save/nin_wtab.pth against models_save/nin_wtab_merged.pth, fp32")
    missing = refined(COMPARE, "--W", "32")
    assert_refused(missing, 3, "models_save/nin_w32ab_merged.pth: no such file")
    assert "python -m bn_merge --W 32" in missing.err
    other = refined(COMPARE, "models_save/nin_wtab_merged.pth", "--W", "2")
    assert_refused(other, 3, "--W 2, but the weights of models_save/nin_wtab_merged.pth are of kind t")


def test_the_parent_is_known_by_its_hash(refined: Command) -> None:
    merged = refined(MERGE, "--model", "models_save/nin_refine.pth", "--cpu").path
    source = Path("models_save/nin_refine.pth")
    moved = source.rename("models_save/renamed.pth")
    assert refined(COMPARE, merged, "--cpu").out.startswith("models_save/renamed.pth against ")
    other = Path("models_save/nin_refine.pth")
    other.write_bytes(Path("models_save/nin_prune.pth").read_bytes())  # the old name, another content
    assert refined(COMPARE, merged, "--cpu").out.startswith("models_save/renamed.pth against ")
    elsewhere = moved.rename("gone.pth")
    gone = refined(COMPARE, merged, "--cpu")
    assert_refused(gone, 3, f"the file that {merged} was merged from is not in models_save/")
    assert "or merge again: python -m bn_merge --model models_save/nin_refine.pth\n" in gone.err
    assert refined(COMPARE, elsewhere, merged, "--cpu").out.startswith("gone.pth against ")


def test_compare_names_the_pictures_that_differ(refined: Command) -> None:
    merged = refined(MERGE, "--model", "models_save/nin_refine.pth", "--cpu").path
    shown = refined(COMPARE, "models_save/nin_preprune.pth", merged, "--cpu", "--json").out  # not its parent
    result = json.loads(shown)
    assert result["agree"] == 360 - len(result["top2_gaps"]) < 360
    text = refined(COMPARE, "models_save/nin_preprune.pth", merged, "--cpu").out
    assert text.count("its two best logits were") == len(result["top2_gaps"])


@pytest.mark.parametrize("arithmetic", [(), ("--float64",)])
def test_another_file_than_the_one_merged_is_named(refined: Command, arithmetic: tuple[str, ...]) -> None:
    merged = refined(MERGE, "--model", "models_save/nin_refine.pth", "--cpu").path
    words = "models_save/nin_prune.pth is not the file that models_save/nin_refine_merged.pth was merged from"
    assert f"warning: {words}\n" in refined(COMPARE, "models_save/nin_prune.pth", merged, "--cpu", *arithmetic).err
    assert "warning" not in refined(COMPARE, merged, "--cpu", *arithmetic).err


def changed(path: str, change: Callable[[dict[str, torch.Tensor]], Any]) -> None:
    content = raw(Path(path))
    change(content["state_dict"])
    archive.save(Path(path), content)


def test_float64_judges_the_file_itself(refined: Command) -> None:
    """Folding again instead of reading the file would agree with the parent, whatever the file holds."""
    merged = refined(MERGE, "--model", "models_save/nin_refine.pth", "--cpu").path
    changed(merged, lambda state: state["block9.conv.codes"].neg_())
    result = json.loads(refined(COMPARE, merged, "--cpu", "--json", "--float64").out)
    assert (result["agree"] < 300, result["fresh_agree"]) == (True, 360)
    assert (
        "a fresh fold of models_save/nin_refine.pth, float64: same answer 360 of 360"
        in refined(COMPARE, merged, "--cpu", "--float64").out
    )


def test_logits_that_are_no_numbers_agree_with_nothing(refined: Command) -> None:
    merged = refined(MERGE, "--model", "models_save/nin_refine.pth", "--cpu").path
    changed(merged, lambda state: state["block9.conv.bias"].fill_(3e38))  # their mean overflows
    found = refined(COMPARE, merged, "--cpu", "--json").out
    result = json.loads(found, parse_constant=lambda word: pytest.fail(word))
    assert (result["agree"], result["largest_logit_difference"], len(result["top2_gaps"])) == (0, None, 360)
    assert "largest logit difference not a finite number" in refined(COMPARE, merged, "--cpu").out


def test_hints_where_files_are_mixed_up(refined: Command) -> None:
    source = "models_save/nin_refine.pth"
    merged = refined(MERGE, "--model", source, "--cpu").path
    swapped, alone = refined(COMPARE, merged, source), refined(COMPARE, source)
    assert_refused(swapped, 3, f"{source} is not merged")
    assert "hint: name the unmerged file first\n" in swapped.err
    assert_refused(alone, 3, f"{source} is not merged")
    assert f"hint: name the merged file: python -m bn_merge.compare {merged}\n" in alone.err
    whole, make = Path(merged).read_bytes(), f"hint: create the merged file with: python -m bn_merge --model {source}\n"
    for other in (Path("models_save/nin_prune.pth").read_bytes(), b"damaged"):
        Path(merged).write_bytes(other)
        assert make in refined(COMPARE, source).err
    Path(merged).write_bytes(whole)
    assert_refused(refined(COMPARE, merged, merged), 3, f"{merged} is also merged")


def test_a_file_with_the_weights_that_were_asked_for_is_named(refined: Command) -> None:
    for name in (
        "nin_wta32",
        "nin_wta32_merged",
        "nin_wba32",
        "my nin_wta8",
        "nin_w8a8",
        "nin_wbab_ends",
        "nin_wbab_ends_merged",
    ):
        Path(f"models_save/{name}.pth").touch()
    made = "or make it with: python -m quant.wbwtab --W {} --A 2"
    ternary, binary, floats = (refined(MERGE, "--W", bits) for bits in (3, 2, 32))
    assert_refused(ternary, 3, "models_save/nin_wtab.pth: no such file")
    assert f"hint: take --model models_save/nin_wta32.pth, {made.format(3)}\n" in ternary.err
    files = "take --model models_save/nin_wba32.pth, or take --model models_save/nin_wbab_ends.pth"
    assert f"hint: {files}, {made.format(2)}\n" in binary.err
    assert "hint: make it with: python -m quant.wbwtab --W 32 --A 2\n" in floats.err
    assert refined(MERGE, "--W", 3, "--model", "typo.pth").err.endswith("hint: check the path\n")


def test_json_is_one_object(refined: Command) -> None:
    shown = json.loads(
        refined(MERGE, "--model", "models_save/nin_refine.pth", "--save", "x.pth", "--cpu", "--json").out
    )
    content = contract("x.pth", "train", "prune", "refine", "merge")
    assert (shown["path"], shown["accuracy"]) == ("x.pth", content["best_acc"])
    assert shown["agree"] == round(360 * content["metrics"]["agreement"])


def test_a_merged_file_is_merged_quantized_and_pruned_no_further(refined: Command) -> None:
    merged = refined(MERGE, "--model", "models_save/nin_refine.pth", "--cpu").path
    before = Path(merged).read_bytes()
    assert_refused(refined(MERGE, "--model", merged, "--cpu", "--save", "x.pth"), 3, f"{merged} is already merged")
    for module, flag in (
        ("prune.normal_regular", "--model"), ("prune.train", "--refine"), ("quant.wqaq", "--refine"), ("quant.ptq", "--model"),
    ):  # fmt: skip
        assert_refused(refined(module, flag, merged, "--cpu", "--save", "x.pth"), 3, "after stage 'merge'")
    assert not Path("x.pth").exists()
    assert Path(merged).read_bytes() == before


def damaged(change: Callable[[dict[str, Any]], Any]) -> Path:
    content = raw(Path("models_save/nin_wbab.pth"))
    change(content)
    archive.save(Path("bad.pth"), content)
    return Path("bad.pth")


def test_files_that_cannot_be_merged(refined: Command, make: Callable) -> None:
    source = make("nin_wbab")
    Path("out.pth").write_bytes(b"what was there before")
    cases: list[tuple[Callable, str]] = [
        (lambda c: c["state_dict"]["block2.conv.weight"].fill_(float("nan")), "block2.conv.weight holds"),
        (
            lambda c: c["state_dict"].update({"block4.bn.running_var": torch.ones(3)}),
            "block4.bn.running_var has shape (3,)",
        ),
        (lambda c: c["state_dict"]["block4.bn.running_var"].fill_(-1), "a negative variance"),
        (lambda c: c["state_dict"].pop("block4.bn.weight"), "block4.bn.weight is missing"),
        (lambda c: c["transforms"][-1]["spec"]["weight"].update(kind="lsq"), "cannot be understood"),
    ]
    for change, words in cases:
        assert_refused(refined(MERGE, "--model", damaged(change), "--cpu", "--save", "out.pth"), 3, words)
    for w, path, kind in (("3", source, "of kind b"), ("32", source, "of kind b"), ("2", PRUNED, "32-bit")):
        result = refined(MERGE, "--model", path, "--W", w, "--cpu", "--save", "out.pth")
        assert_refused(result, 3, f"--W {w}, but the weights of {path} are {kind}")
    assert_refused(refined(COMPARE, source, "--cpu"), 3, f"{source} is not merged")
    assert Path("out.pth").read_bytes() == b"what was there before"


@pytest.mark.parametrize("line", ["--W 4", "--W b", f"--cfg {NARROW}", "--Wbits 8", "--float64"])
def test_flags_that_cannot_be_meant(refined: Command, line: str) -> None:
    assert_refused(refined(MERGE, "--model", "models_save/nin_refine.pth", *line.split(), "--save", "x.pth"), 2)
    assert not Path("x.pth").exists()
    assert_refused(refined(COMPARE, "a.pth", "b.pth", "c.pth"), 2, "more than two files")


def test_input_and_output_are_one_file_only_with_overwrite(refined: Command) -> None:
    path = Path("models_save/nin_refine.pth")
    before = path.read_bytes()
    assert_refused(refined(MERGE, "--model", path, "--save", path, "--cpu"), 2, "is both input and output")
    assert path.read_bytes() == before
    assert refined(MERGE, "--model", path, "--save", path, "--overwrite", "--cpu").code == 0
    contract(str(path), "train", "prune", "refine", "merge")
