"""--weights: a state_dict of one's own in the place of a checkpoint, by every command that starts from one."""

from __future__ import annotations

import json
import sys
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from torch import Tensor

import models
from engine.checkpoint import format as checkpoint
from engine.checkpoint.format import Checkpoint
from engine.data import catalogue
from engine.system import files as system_files
from tests.conftest import NARROW, SMALL, assert_refused
from tests.tools import cases
from tests.tools.refusals import refused, snapshot
from tests.tools.residual import ARCH as DECLARED, residual

ARCH = "tests.tools.cases:Residual"
QUIET = ("--quiet", "--cpu")
DIGITS = ("--dataset", "digits", "--image_size", "8", *QUIET)
OWN = ("--arch", ARCH, "--weights", "own.pth")
HEAD = ["head.fc.weight", "head.fc.bias"]


def network(classes: int = 10, seed: int = 0) -> Any:
    """A network of the user's whose statistics and scales are not those of a fresh one."""
    torch.manual_seed(seed)
    made = cases.Residual(classes)
    for name, tensor in made.state_dict().items():
        if tensor.is_floating_point() and "weight" not in name:
            tensor.uniform_(0.5, 1.5)
    return made.eval()


def written(path: str, state: Any) -> dict[str, Tensor]:
    torch.save(state, path)
    return state


def described(path: str) -> Checkpoint:
    found = checkpoint.load(Path(path))
    assert isinstance(found, Checkpoint)
    return found


def test_sparse_training_starts_from_these_weights(command) -> None:
    state = written("own.pth", network().state_dict())
    done = command("prune.train", "-sr", *OWN, *SMALL, "--lr", "1e-9", "--wd", "0")
    assert (done.code, done.path) == (0, "models_save/Residual_preprune.pth"), done.err
    made = described(done.path)
    assert [stage.to_dict() for stage in made.history] == [
        {"stage": "original"},
        {"stage": "refine", "s": 1e-4, "epochs": 1},
    ]
    assert made.provenance.parent == "own.pth"
    assert made.provenance.parent_sha256 == system_files.sha256(Path("own.pth"))
    for name, value in state.items():
        if "running" not in name and value.is_floating_point():
            torch.testing.assert_close(made.state_dict[name], value, atol=1e-6, rtol=0)
    pruned = command("prune.normal_regular", "--arch", ARCH, "--percent", "0.3", *QUIET)
    assert pruned.code == 0, pruned.err


@pytest.mark.parametrize(
    ("module", "more", "path"),
    [
        ("prune.normal_regular", ("--percent", "0.3"), "models_save/Residual_prune.pth"),
        ("prune.gc", (), "models_save/Residual_prune.pth"),
        ("prune.train", ("--evaluate",), "own.pth"),
    ],
)
def test_a_captured_network(module: str, more: tuple[str, ...], path: str, command) -> None:
    written("own.pth", network().state_dict())
    done = command(module, *OWN, *DIGITS, *more)
    assert (done.code, done.path) == (0, path), done.err


@pytest.mark.parametrize(
    ("module", "more", "path"),
    [
        ("prune.normal_regular", ("--percent", "0.3"), "residual_prune"),
        ("quant.ptq", (), "residual_ptq_mse"),
        ("quant.wqaq", ("--epochs", "1"), "residual_w8a8"),
        ("quant.wbwtab", ("--W", "3", "--A", "32", "--epochs", "1"), "residual_wta32"),
        ("bn_merge.__main__", (), "residual_merged"),
    ],
)
def test_a_network_that_declares_its_channels(module: str, more: tuple[str, ...], path: str, command) -> None:
    written("own.pth", residual([6, 4, 8]).state_dict())
    line = (module, "--arch", DECLARED, "--weights", "own.pth", "--cfg", "6,4,8", *DIGITS, *more)
    done = command(*line)
    assert (done.code, done.path) == (0, f"models_save/{path}.pth"), done.err
    assert described(done.path).provenance.parent_sha256 == system_files.sha256(Path("own.pth"))


def test_a_merged_file_is_compared_with_the_weights_that_it_was_made_from(command) -> None:
    written("own.pth", residual().state_dict())
    own = ("--arch", DECLARED, "--weights", "own.pth")
    merged = command("bn_merge.__main__", *own, *DIGITS).path
    for line in (own, ("--arch", DECLARED, merged), ("--arch", DECLARED, "own.pth", merged)):
        done = command("bn_merge.compare", *line, *QUIET)
        assert done.code == 0, done.err
        assert "same answer   360 of 360" in done.out
    written("other.pth", residual().state_dict())
    other = command("bn_merge.compare", "--arch", DECLARED, "--weights", "other.pth", merged, *QUIET)
    assert "warning: other.pth is not the file that" in other.err


@pytest.mark.parametrize(
    "wrap",
    [
        lambda state: state,
        lambda state: {"state_dict": state, "epoch": 3},
        lambda state: {"model": {f"module.{key}": value for key, value in state.items()}},
        lambda state: {"model_state_dict": {f"_orig_mod.module.{key}": value for key, value in state.items()}},
        lambda state: {"state_dict": {f"model.{key}": value for key, value in state.items()}},
        lambda state: {key: value for key, value in state.items() if "num_batches" not in key},
    ],
)
def test_the_accuracy_is_that_of_the_network_itself(wrap, command) -> None:
    own = network()
    written("own.pth", wrap(own.state_dict()))
    done = command("prune.train", "--evaluate", *OWN, *DIGITS, "--json")
    data = catalogue.load("digits", image_size=8)
    right = sum(int((own(x).argmax(1) == y).sum()) for x, y in data.test.batches(360))
    assert json.loads(done.out)["accuracy"] == pytest.approx(100 * right / 360)


def test_mean_and_std_are_the_networks_own(command) -> None:
    own = network()
    written("own.pth", own.state_dict())
    done = command("prune.train", "--evaluate", *OWN, *DIGITS)
    info = catalogue.describe("digits", 8)
    mean, std = (",".join(f"{value:.4g}" for value in values) for values in (info.mean, info.std))
    notice = f"notice: own.pth does not say what its pictures were normalised with: taken to be that of digits, mean {mean}, std {std}"
    assert notice in done.err
    said = ("--mean", "0.5,0.5,0.5", "--std", "0.25,0.25,0.25")
    done = command("prune.normal_regular", *OWN, *DIGITS, "--percent", "0.3", *said)
    assert "normalised with" not in done.err
    assert (described(done.path).dataset.mean, described(done.path).dataset.std) == ((0.5,) * 3, (0.25,) * 3)


def test_a_head_for_other_classes_is_made_fresh_where_it_is_trained(command) -> None:
    state = written("own.pth", network(7).state_dict())
    line = ("prune.train", *OWN, *SMALL, "--lr", "1e-9", "--wd", "0")
    done = command(*line)
    assert "notice: head.fc.weight, head.fc.bias are made fresh: the file has 7 classes, digits 10" in done.err
    first = described(done.path)
    assert first.history[0].to_dict() == {"stage": "original", "made_fresh": HEAD}
    assert first.state_dict["head.fc.weight"].shape == (10, 32)
    torch.testing.assert_close(first.state_dict["c1.weight"], state["c1.weight"], atol=1e-6, rtol=0)
    command(*line, "--save", "again.pth")
    assert all(torch.equal(value, described("again.pth").state_dict[key]) for key, value in first.state_dict.items())
    command(*line, "--save", "other.pth", "--seed", "2")
    assert not torch.allclose(described("other.pth").state_dict[HEAD[0]], first.state_dict[HEAD[0]], atol=1e-3)
    asked = command(*line, "--save", "12.pth", "--classes", "12", "--val", "300")
    assert "are made fresh: the file has 7 classes, --classes 12" in asked.err
    later = command("prune.normal_regular", "--arch", ARCH, "--model", "12.pth", "--val", "300", *QUIET)
    assert later.code == 0, later.err  # nothing has learnt from what is held out


def test_a_head_that_is_not_there_is_made_fresh_too(command) -> None:
    written("own.pth", {key: value for key, value in network().state_dict().items() if key not in HEAD})
    done = command("prune.train", *OWN, *SMALL)
    assert done.code == 0
    assert "notice: head.fc.weight, head.fc.bias are made fresh: the file has none" in done.err
    refused(command("scripts.summary", *OWN), 2, "own.pth has no last layer: no head.fc.weight, head.fc.bias")


@pytest.mark.parametrize(
    ("module", "more", "says"),
    [
        ("prune.normal_regular", (), "digits 10"),
        ("prune.train", ("--evaluate",), "digits 10"),
        ("quant.ptq", (), "digits 10"),
        ("bn_merge.__main__", (), "digits 10"),
        ("scripts.summary", ("--classes", "12"), "--classes 12"),
        ("scripts.summary", ("--sensitivity",), "digits 10"),
    ],
)
def test_an_untrained_head_is_refused(module: str, more: tuple[str, ...], says: str, command, workplace: Path) -> None:
    written("own.pth", network(7).state_dict())
    before = snapshot(workplace)
    done = command(module, *OWN, *DIGITS, *more)
    assert_refused(done, 2, f"own.pth has 7 classes, {says}")
    assert f"train first: python -m prune.train --arch {ARCH} --weights own.pth" in done.err
    assert snapshot(workplace) == before


def test_the_classes_are_those_of_the_file_where_nothing_else_says_them(command) -> None:
    written("own.pth", network(7).state_dict())
    rows = json.loads(command("scripts.summary", *OWN, "--json").out)["layers"]
    assert rows[-1]["params"] == 7 * 32 + 7
    torch.manual_seed(0)
    written("r.pth", models.registry.build("torchvision:resnet18", classes=1000).state_dict())
    shown = json.loads(command("scripts.summary", "--arch", "torchvision:resnet18", "--weights", "r.pth", "--json").out)
    assert shown["params"] == 11_689_512


def test_a_network_of_the_toolkit_is_known_by_its_shapes(command) -> None:
    torch.manual_seed(0)
    written("own.pth", models.build("nin", [8] * 8).state_dict())
    done = command("prune.train", "-sr", "--weights", "own.pth", *SMALL)
    assert (done.code, done.path) == (0, "models_save/nin_preprune.pth"), done.err
    assert described(done.path).cfg == [8] * 8
    refused(command("prune.train", "--weights", "own.pth", "--cfg", "4,4", *SMALL), 2, "has cfg [8,")
    refused(command("prune.train", "--weights", "own.pth", "--arch", "nin_gc", *SMALL), 2, "holds nin")
    written("own.pth", network().state_dict())
    done = command("prune.train", "--weights", "own.pth", *SMALL)
    assert_refused(done, 2, "those of no network known here")
    assert "hint: say which network they are of: --arch" in done.err


@pytest.mark.parametrize(
    ("module", "line", "words"),
    [
        ("prune.train", ("--refine",), "--weights contradicts --refine"),
        ("prune.train", ("--from_scratch", "a.pth"), "--weights contradicts --refine and --from_scratch"),
        ("prune.train", ("--evaluate", "a.pth"), "--weights contradicts --evaluate F"),
        ("prune.normal_regular", ("--model", "a.pth"), "--weights contradicts --model"),
        ("prune.gc", ("--model", "a.pth"), "--weights contradicts --model"),
        ("quant.wqaq", ("--refine",), "--weights contradicts --refine"),
        ("quant.wbwtab", ("--refine", "a.pth"), "--weights contradicts --refine"),
        ("quant.ptq", ("--model", "a.pth"), "--weights contradicts --model"),
        ("bn_merge.__main__", ("--model", "a.pth"), "--weights contradicts --model"),
        ("bn_merge.compare", ("a.pth", "b.pth"), "--weights contradicts the unmerged file"),
        ("scripts.summary", ("a.pth",), "--weights contradicts a file"),
        ("prune.train", ("--arch", ARCH), "does not say which pictures it is for, and data holds no CIFAR-10"),
    ],
)
def test_two_files_to_start_from(module: str, line: tuple[str, ...], words: str, command, workplace: Path) -> None:
    written("own.pth", {"a": torch.zeros(1)})
    assert_refused(command(module, "--weights", "own.pth", *line), 2, words)
    assert [path.name for path in workplace.iterdir()] == ["own.pth"]


def test_keys_that_fit_nowhere(command, workplace: Path) -> None:
    own = network().state_dict()
    written("own.pth", {f"backbone.{key}": value for key, value in own.items()})
    done = command("prune.train", *OWN, *SMALL)
    assert_refused(done, 3, f"own.pth: {len(own)} of its {len(own)} keys fit nowhere in {ARCH}")
    assert "backbone.stem.0.weight (nearest: stem.0.weight)" in done.err
    assert done.err.count("nearest: ") == 5
    wider = {key: torch.zeros(99, *value.shape[1:]) if key == "c1.weight" else value for key, value in own.items()}
    written("own.pth", wider)
    done = command("prune.train", *OWN, *SMALL)
    assert_refused(done, 3, f"1 of its {len(own)} keys fit nowhere", "c1.weight has shape (99, 16, 3, 3), not (24, 16,")
    written("own.pth", {key: value for key, value in own.items() if not key.startswith("n2")})
    assert_refused(command("prune.train", *OWN, *SMALL), 3, f"it lacks 5 of the {len(own)} keys of {ARCH}: n2.weight,")
    written("own.pth", models.build("nin").state_dict())
    done = command("prune.train", *OWN, *SMALL)
    assert done.err.splitlines()[-1] == "hint: they look like those of nin: --arch nin?"
    assert [path.name for path in workplace.iterdir()] == ["own.pth"]


def test_files_that_are_no_state_dict(command, workplace: Path) -> None:
    assert_refused(command("prune.train", *OWN, *SMALL), 3, "own.pth: no such file")
    written("own.pth", network().state_dict())
    whole = Path("own.pth").read_bytes()
    Path("own.pth").write_bytes(whole[: len(whole) // 2])
    assert_refused(command("prune.train", *OWN, *SMALL), 3, "own.pth")
    torch.save({"epoch": 3}, "own.pth")
    assert_refused(command("prune.train", *OWN, *SMALL), 3, "no state_dict in it")
    torch.save(network(), "own.pth")
    assert_refused(command("prune.train", *OWN, *SMALL), 3, "own.pth: holds", "not just tensors and plain values")
    assert [path.name for path in workplace.iterdir()] == ["own.pth"]


def test_a_checkpoint_describes_itself(refined) -> None:
    done = refined("prune.train", "--weights", "models_save/nin_refine.pth", *SMALL)
    assert_refused(done, 2, "models_save/nin_refine.pth is a checkpoint, which says itself what it holds")


def test_a_network_that_was_narrowed_elsewhere(command) -> None:
    written("own.pth", network().state_dict())
    pruned = command("prune.normal_regular", *OWN, *DIGITS, "--percent", "0.4")
    state = described(pruned.path).state_dict
    assert state["c1.weight"].shape != network().state_dict()["c1.weight"].shape
    written("own.pth", state)
    judged = command("prune.train", "--evaluate", *OWN, *DIGITS, "--json")
    assert json.loads(judged.out)["accuracy"] == described(pruned.path).metrics.accuracy
    again = command("prune.train", *OWN, *SMALL, "--classes", "12", "--save", "twelve.pth")
    assert again.code == 0, again.err
    assert described("twelve.pth").state_dict["c1.weight"].shape == state["c1.weight"].shape


def test_a_run_goes_on_with_the_same_weights_alone(command) -> None:
    written("own.pth", network().state_dict())
    line = ("prune.train", *OWN, *SMALL)
    assert command(*line).code == 0
    assert "already complete" in command(*line[:-2], "--precision", "fp32", "--resume").err
    written("own.pth", network(seed=1).state_dict())
    refused(command(*line, "--resume"), 2, "source_sha256")


def test_safetensors_are_refused_by_name_where_their_library_is_not(command, monkeypatch: pytest.MonkeyPatch) -> None:
    Path("own.safetensors").write_bytes(b"\2\0\0\0\0\0\0\0{}" + bytes(200_000))
    monkeypatch.setitem(sys.modules, "safetensors", None)
    done = command("prune.train", "--arch", ARCH, "--weights", "own.safetensors", *SMALL)
    assert_refused(done, 2, "own.safetensors: safetensors is not installed")
    own = network().state_dict()
    reader = SimpleNamespace(load=lambda content: own if content.startswith(b"\2") else {}[content])
    monkeypatch.setitem(sys.modules, "safetensors", SimpleNamespace(torch=reader))
    monkeypatch.setitem(sys.modules, "safetensors.torch", reader)
    done = command("prune.train", "--evaluate", "--arch", ARCH, "--weights", "own.safetensors", *DIGITS)
    assert done.code == 0, done.err
    Path("own.safetensors").write_bytes(b"damaged")
    assert_refused(command("prune.train", "--arch", ARCH, "--weights", "own.safetensors", *SMALL), 3, "damaged")


def test_the_widths_of_ones_own_network_may_be_said(command) -> None:
    written("own.pth", residual([6, 4, 8]).state_dict())
    own = ("--arch", DECLARED, "--weights", "own.pth")
    assert "has shape" in command("scripts.summary", *own).err
    assert command("scripts.summary", *own, "--cfg", "6,4,8").code == 0
    assert_refused(command("prune.normal_regular", "--cfg", NARROW), 2, "--cfg")
