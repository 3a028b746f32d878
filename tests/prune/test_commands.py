"""Training, pruning and refining like a user: printed output, written files, and errors that change nothing."""

from __future__ import annotations

import gc
import importlib
import json
import pickle
import re
import shutil
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace

import pytest
import torch
from torch import Tensor

import models
from engine.checkpoint import archive
from engine.data import catalogue
from engine.system import files
from models.graph.channels.classes import gates
from models.graph.normal import NormalForm
from prune import sparsity
from tests.conftest import NARROW, SMALL
from tests.tools.contents import raw, typed
from tests.tools.refusals import refused, snapshot

CFGS = {
    "nin_gc": "16,16,32,32,16,64,64,32",
    "slimming": "8,12,16",
    "separable": "4,8,8,16,16,16,16,32",
    "separable_wide": "4,8,8,16,16,16,16,32",
}
PREPRUNE = Path("models_save/nin_preprune.pth")
MADE = (
    f"prune.train --cfg {NARROW}",
    f"prune.train --cfg {NARROW} -sr --s 0.1",
    "quant.wqaq --Wbits 2 --Abits 2 --refine models_save/nin.pth",
    "bn_merge.__main__ --model models_save/nin_w2a2.pth",
)

Command = Callable[..., SimpleNamespace]


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Make a folder with nin.pth, nin_preprune.pth, nin_w2a2.pth and its merged form."""
    folder = tmp_path_factory.mktemp("made")
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(folder)
        for line in MADE:
            module, *argv = line.split()
            argv += SMALL if "Bits" in line or "cfg" in line else ("--cpu",)
            assert importlib.import_module(module).main(argv) == 0
    return folder / "models_save"


@pytest.fixture
def saved(workplace: Path, made: Path) -> Path:
    """Return the working folder with a copy of those files in its models_save/."""
    shutil.copytree(made, workplace / "models_save")
    return workplace


def read(path: Path | str) -> dict:
    return raw(Path(path))


def rewrite(path: str, **changed: Tensor) -> None:
    """Write nin_preprune.pth with other BN scales: `block3` names those of block3.bn."""
    content = read(PREPRUNE)
    content["state_dict"].update({f"{block}.bn.weight": value for block, value in changed.items()})
    archive.save(Path(path), content)


def flat(**others: float) -> dict[str, Tensor]:
    return {f"block{n}": torch.full((8,), others.get(f"block{n}", 0.5)) for n in range(1, 9)}


def accuracy(state: dict[str, Tensor], silent: dict[str, Tensor] | None = None) -> float:
    """Compute a nin's accuracy on the 360 small test digits; `silent` marks channels of each gate to set to 0."""
    network = models.build("nin", [len(state[f"block{n}.bn.weight"]) for n in range(1, 9)])
    network.load_state_dict(state)
    for name, dropped in (silent or {}).items():
        network.get_submodule(name).weight.data[dropped] = 0
        network.get_submodule(name).bias.data[dropped] = 0
    ((images, labels),) = catalogue.load("digits", image_size=8).test.batches(1000)
    with torch.no_grad():
        return 100 * (network.eval()(images).argmax(1) == labels).double().mean().item()


def number(text: str, before: str) -> float:
    return float(re.search(re.escape(before) + r"\s+(-?[\d.]+)", text)[1])


def test_plain_training_writes_what_it_says(saved: Path, command: Command) -> None:
    before = snapshot(saved)
    content = read("models_save/nin.pth")
    assert (content["cfg"], content["transforms"]) == ([8] * 8, [{"stage": "train", "epochs": 1}])
    assert content["best_acc"] == pytest.approx(accuracy(content["state_dict"]), abs=1e-9)
    judged = command("prune.train", "--evaluate", "--cpu")
    assert judged.out == f"test accuracy {content['best_acc']:.2f} % on digits (360 pictures)\nmodels_save/nin.pth\n"
    assert snapshot(saved) == before
    assert not Path("runs").exists()


def test_equal_commands_write_equal_bytes(workplace: Path, command: Command) -> None:
    line = ("prune.train", *SMALL, "--cfg", NARROW)
    content = Path(command(*line).path).read_bytes()
    gc.collect()  # the run folder is locked as long as its first user is in memory
    again = command(*line)
    assert f"replaced {again.path}" in again.err
    assert Path(again.path).read_bytes() == content


def test_sparse_training_pushes_the_scales_down(saved: Path) -> None:
    plain, sparse = (
        sum(scales.abs().sum().item() for scales in sparsity.gammas(models.restore(typed(read(path)))))
        for path in ("models_save/nin.pth", PREPRUNE)
    )
    assert sparse < 0.95 * plain
    assert read(PREPRUNE)["transforms"] == [{"stage": "train", "s": 0.1, "epochs": 1}]


def test_pruning_prints_and_writes_what_a_count_by_hand_gives(saved: Path, command: Command) -> None:
    source = read(PREPRUNE)
    scales = {name: bn.weight.detach().abs() for name, bn in gates(models.restore(typed(source)))}
    ranked = sorted((s.item(), layer, i) for layer, g in enumerate(scales.values()) for i, s in enumerate(g))
    silent = {name: torch.zeros(8, dtype=torch.bool) for name in scales}
    for _, layer, i in ranked[:32]:
        list(silent.values())[layer][i] = True
    cfg = [8 - int(gone.sum()) for gone in silent.values()]
    assert min(cfg) > 0

    done = command("prune.normal_regular", "--percent", 0.5)
    assert (done.code, done.path) == (0, "models_save/nin_prune.pth"), done.err
    content = read(done.path)
    assert content["cfg"] == cfg
    assert (
        f"cfg before  {[8] * 8}\ncfg after   {cfg}\npercent     requested 50.00 %, achieved 50.00 % of the channels that can be cut\n"
        in done.out
    )
    for n, kept in enumerate(cfg, 1):
        assert re.search(rf"^block{n}\.conv\s+8\s+{kept}$", done.out, re.M)
    learnt = [sum(p.numel() for p in models.restore(typed(c)).parameters()) for c in (source, content)]
    assert f"parameters  {learnt[0]:,} -> {learnt[1]:,}\n" in done.out
    found = [number(done.out, what) for what in ("  before", "masked", "sliced", "BN re-estimated")]
    masked = accuracy(source["state_dict"], silent)
    assert found == [round(a, 2) for a in (source["best_acc"], masked, masked, content["best_acc"])]
    assert content["best_acc"] == pytest.approx(accuracy(content["state_dict"]), abs=1e-9)
    means = [c["state_dict"]["block1.bn.running_mean"] for c in (source, content)]
    assert not torch.allclose(means[0][~silent["block1.bn"]], means[1], rtol=1e-3)  # measured again
    assert content["provenance"]["parent_sha256"] == files.sha256(PREPRUNE)
    stage = {"stage": "prune", "percent": 0.5, "base": 1, "achieved": 0.5, "cfg_before": [8] * 8}
    assert content["transforms"] == [*source["transforms"], stage]


def test_json_says_the_same(saved: Path, command: Command) -> None:
    found = json.loads(command("prune.normal_regular", "--percent", 0.25, "--json").out)
    content = read("models_save/nin_prune.pth")
    assert (found["path"], found["percent"], found["achieved"]) == ("models_save/nin_prune.pth", 0.25, 0.25)
    assert (found["cfg_before"], found["cfg_after"], sum(found["cfg_after"])) == ([8] * 8, content["cfg"], 48)
    assert found["accuracy"] == content["metrics"]["pruning"]


def test_refining_goes_on_and_the_control_starts_anew(saved: Path, command: Command) -> None:
    pruned = command("prune.normal_regular")
    still = (*SMALL, "--lr", "1e-30")  # so that the weights end where they started
    refined, control = command("prune.train", "--refine", *still), command("prune.train", "--from_scratch", *still)
    assert (refined.path, control.path) == ("models_save/nin_refine.pth", "models_save/nin_scratch.pth")
    start, fine, fresh = (read(done.path) for done in (pruned, refined, control))
    assert start["cfg"] == fine["cfg"] == fresh["cfg"] != [8] * 8
    key = "block4.conv.weight"
    assert torch.equal(fine["state_dict"][key], start["state_dict"][key])
    assert not torch.equal(fresh["state_dict"][key], start["state_dict"][key])
    assert fine["transforms"] == [*start["transforms"], {"stage": "refine", "epochs": 1}]
    done = {"stage": "train", "from_scratch": True, "pruned": start["transforms"][-1:], "epochs": 1}
    assert fresh["transforms"] == [done]


def test_resumed_is_uninterrupted(workplace: Path, command: Command, monkeypatch: pytest.MonkeyPatch) -> None:
    """They are equal bit for bit after a stop in the middle of the second of three epochs of 12 steps."""
    line = ("prune.train", "-sr", "--s", 0.001, *SMALL, "--epochs", 3, "--cfg", NARROW)
    assert command(*line, "--save", "whole.pth").code == 0
    left, penalty = iter(range(18)), sparsity.penalty
    with monkeypatch.context() as patch:

        def mortal(s: float) -> Callable[[NormalForm], Tensor]:
            return lambda model: penalty(s)(model) if next(left, None) is not None else _interrupt()

        patch.setattr(sparsity, "penalty", mortal)
        refused(command(*line, "--save", "half.pth"), 130, "interrupted", "--resume")
    assert not Path("half.pth").exists()
    assert archive.load(Path("runs/half/state.pth"))[0]["epoch"] == 1
    for more, code in ((("--lr", 0.5), 2), ((), 0)):  # another setting makes another run
        gc.collect()
        assert command(*line, "--save", "half.pth", "--resume", *more).code == code
    one, other = read("whole.pth"), read("half.pth")
    assert one["state_dict"].keys() == other["state_dict"].keys()
    assert all(torch.equal(value, other["state_dict"][key]) for key, value in one["state_dict"].items())
    assert one["metrics"] == other["metrics"]
    assert Path("runs/whole/metrics.csv").read_bytes() == Path("runs/half/metrics.csv").read_bytes()


def _interrupt() -> Tensor:
    raise KeyboardInterrupt


@pytest.mark.parametrize(
    "arch", ["nin_gc", "slimming", pytest.param("separable", marks=pytest.mark.slow), "separable_wide"]
)
def test_every_network_is_trained_pruned_and_refined(arch: str, workplace: Path, command: Command) -> None:
    sparse = command("prune.train", "--arch", arch, "-sr", "--cfg", CFGS[arch], *SMALL)
    pruned = command("prune.gc", "--arch", arch)  # as normal_regular, with other defaults
    refined = command("prune.train", "--arch", arch, "--refine", *SMALL)
    names = [f"models_save/{arch}_{name}.pth" for name in ("preprune", "prune", "refine")]
    assert [done.path for done in (sparse, pruned, refined)] == names
    before, content, after = map(read, names)
    assert before["transforms"] == [{"stage": "train", "s": 1e-3 if arch == "nin_gc" else 1e-4, "epochs": 1}]
    assert sum(content["cfg"]) < sum(before["cfg"])
    assert models.restore(typed(after)).cfg == content["cfg"]
    assert number(pruned.out, "masked") == number(pruned.out, "sliced")  # and see test_surgery.py
    assert "requested 40.00 %" in pruned.out
    assert [t["stage"] for t in after["transforms"]] == ["train", "prune", "refine"]
    assert f"cfg after   {content['cfg']}\n" in pruned.out


def test_a_layer_that_would_be_emptied_is_named(saved: Path, command: Command) -> None:
    rewrite("thin.pth", **flat(block1=0.7, block3=1e-6))
    done = command("prune.normal_regular", "--percent", 0.125, "--model", "thin.pth")
    assert re.search(r"^warning: .*would leave fewer than 2 channels in block3\.conv\b", done.err, re.M)
    widths = [8, 8, 2, 8, 8, 8, 8, 8]  # a single channel would look like a value for all channels
    assert read(done.path)["cfg"] == widths
    assert "requested 12.50 %, achieved 9.38 %" in done.out


def test_equal_scales_are_noticed_and_counted_exactly(saved: Path, command: Command) -> None:
    """floor(64 percent) channels are dropped, the first of equal ones first. (The original keeps one in every layer at any percent.)"""
    rewrite("flat.pth", **flat())
    for percent, first in ((0.01, [8, 8]), (0.1, [2, 8]), (0.2, [2, 4])):
        done = command("prune.normal_regular", "--percent", percent, "--model", "flat.pth")
        assert "warning: flat.pth has BN scales that hardly differ" in done.err
        assert read(done.path)["cfg"] == [*first, 8, 8, 8, 8, 8, 8]


def test_one_file_may_be_input_and_output_if_asked_for(saved: Path, command: Command) -> None:
    assert command("prune.normal_regular", "--save", PREPRUNE, "--overwrite").code == 0
    assert sum(read(PREPRUNE)["cfg"]) == 32


FAULTS = """
3 prune.gc                                                    | models_save/nin_gc_preprune.pth: no such file
3 prune.normal_regular --model nan.pth                        | block2.bn.weight holds 1 value(s) that are not finite
3 prune.normal_regular --model object.pth                     | not just tensors
3 prune.normal_regular --model page.pth                       | looks like an HTML page
3 prune.normal_regular --model strange.pth                    | no known network
3 prune.normal_regular --model models_save/nin_w2a2.pth       | stage 'quantize'
3 prune.gc --model models_save/nin_w2a2_merged.pth            | stage 'quantize'
3 prune.train --refine models_save/nin_w2a2.pth               | stage 'quantize'
3 prune.train --from_scratch models_save/nin_w2a2.pth         | stage 'quantize'
3 prune.train --evaluate models_save/nin_w2a2.pth             | stage 'quantize'
2 prune.normal_regular --save models_save/../models_save/nin_preprune.pth | is both input and output
2 prune.normal_regular --model thin.pth --percent 0.125 --strict | would leave fewer than 2 channels in block3.conv
2 prune.gc --arch nin_gc --model models_save/nin.pth          | holds nin, but --arch is nin_gc
6 prune.normal_regular --save page.pth/out.pth                | cannot write page.pth/out.pth
6 prune.train --save page.pth/out.pth                         | cannot write page.pth/out.pth
4 prune.normal_regular --dataset imagefolder --data nowhere   | nowhere/train
4 prune.train --dataset imagefolder --data nowhere            | nowhere/train
2 prune.train --dataset digits --cfg 8,8                      | --cfg does not fit nin
2 prune.train --dataset digits --arch nin_gc --cfg 8,8,8,8,8,8,8,8 | --cfg does not fit nin_gc
2 prune.train --refine --cfg 8,8,8,8,8,8,8,8                  | --cfg contradicts --refine
2 prune.normal_regular --percent 50                           | did you mean 0.5?
5 prune.train --lr 1e30 --epochs 1 --dataset digits --image_size 8 | loss became
"""


@pytest.mark.parametrize("row", FAULTS.strip().splitlines(), ids=lambda row: row[2:].split("|")[0].strip())
def test_faults(row: str, saved: Path, command: Command) -> None:
    rewrite("thin.pth", **flat(block1=0.7, block3=1e-6))
    rewrite("nan.pth", block2=torch.tensor([1.0] * 7 + [float("nan")]))
    Path("object.pth").write_bytes(pickle.dumps(Path("any object"), protocol=2))
    Path("page.pth").write_text("<!DOCTYPE html><html>not here</html>")
    torch.save(torch.nn.Linear(3, 2).state_dict(), "strange.pth")
    Path("out.pth").write_bytes(b"of great value")
    line, words = row.split("|")
    code, module, *argv = line.split()
    before = snapshot(saved)
    saving = () if {"--save", "--evaluate"} & {*argv} else ("--save", "out.pth")
    done = command(module, *argv, "--cpu", "--quiet", *saving)
    refused(done, int(code), words.strip())
    assert snapshot(saved) == before
