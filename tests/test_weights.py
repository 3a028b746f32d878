"""--weights: a user's state dict in place of a checkpoint, in every command that starts from one."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import torch

import models
from engine.data import catalogue
from engine.system import files as system_files
from tests.conftest import SMALL, assert_refused
from tests.tools.refusals import refused
from tests.tools.residual import residual
from tests.tools.weights import ARCH, DECLARED, DIGITS, HEAD, OWN, QUIET, described, network, written


def test_sparse_training_starts_from_these_weights(command) -> None:
    state = written("own.pth", network().state_dict())
    done = command("prune.train", "-sr", *OWN, *SMALL, "--lr", "1e-9", "--wd", "0")
    assert (done.code, done.path) == (0, "models_save/Residual_preprune.pth"), done.err
    made = described(done.path)
    assert [stage.to_dict() for stage in made.history] == [
        {"stage": "original", "elsewhere": True},
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
    notice = f"notice: own.pth does not say how its pictures were normalised: assuming digits, mean {mean}, std {std}"
    assert notice in done.err
    said = ("--mean", "0.5,0.5,0.5", "--std", "0.25,0.25,0.25")
    done = command("prune.normal_regular", *OWN, *DIGITS, "--percent", "0.3", *said)
    assert "normalised with" not in done.err
    assert (described(done.path).dataset.mean, described(done.path).dataset.std) == ((0.5,) * 3, (0.25,) * 3)


def test_a_head_for_other_classes_is_made_fresh_where_it_is_trained(command) -> None:
    state = written("own.pth", network(7).state_dict())
    line = ("prune.train", *OWN, *SMALL, "--lr", "1e-9", "--wd", "0")
    done = command(*line)
    assert (
        "notice: head.fc.weight, head.fc.bias are initialised afresh: the file has 7 classes, but digits asks for 10"
        in done.err
    )
    first = described(done.path)
    assert first.history[0].to_dict() == {"stage": "original", "made_fresh": HEAD, "elsewhere": True}
    assert first.state_dict["head.fc.weight"].shape == (10, 32)
    torch.testing.assert_close(first.state_dict["c1.weight"], state["c1.weight"], atol=1e-6, rtol=0)
    command(*line, "--save", "again.pth")
    assert all(torch.equal(value, described("again.pth").state_dict[key]) for key, value in first.state_dict.items())
    command(*line, "--save", "other.pth", "--seed", "2")
    assert not torch.allclose(described("other.pth").state_dict[HEAD[0]], first.state_dict[HEAD[0]], atol=1e-3)
    asked = command(*line, "--save", "12.pth", "--classes", "12", "--val", "300")
    assert "are initialised afresh: the file has 7 classes, but --classes asks for 12" in asked.err
    later = command("prune.normal_regular", "--arch", ARCH, "--model", "12.pth", "--val", "300", *QUIET)
    assert later.code == 0, later.err  # held-out pictures were not trained on


def test_a_head_that_is_not_there_is_made_fresh_too(command) -> None:
    written("own.pth", {key: value for key, value in network().state_dict().items() if key not in HEAD})
    done = command("prune.train", *OWN, *SMALL)
    assert done.code == 0
    assert "notice: head.fc.weight, head.fc.bias are initialised afresh: the file has none" in done.err
    refused(command("scripts.summary", *OWN), 2, "own.pth has no last layer: no head.fc.weight, head.fc.bias")


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
    assert_refused(done, 2, "its weights belong to no known network")
    assert "hint: name their network: --arch" in done.err


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
    refused(command(*line, "--resume"), 2, "other contents of its input file: sha256 ")


def test_a_report_says_that_nobody_has_judged_these_weights(command) -> None:
    written("own.pth", network(7).state_dict())
    pruned = command("prune.train", *OWN, *SMALL, "--save", "trained.pth")
    assert pruned.code == 0, pruned.err
    done = command("scripts.report", *OWN, "trained.pth", "--image_size", "8", "--json")
    assert done.code == 0, done.err
    first, second = json.loads(done.out)["rows"]
    assert (first["file"], first["accuracy"], first["dataset"]) == ("own.pth", None, "unknown")
    assert first["params"] + 3 * 33 == second["params"]  # three more classes
    assert second["loss_points"] is None
    assert "notice: no losses: the baseline, own.pth, was not evaluated\n" in done.err
    assert "| not evaluated |" in Path("runs/report.md").read_text()
    assert "no loss" not in command("scripts.report", *OWN, "--image_size", "8").err  # of one row nobody expects one
    assert "unknown" in command("scripts.report", *OWN).out  # 32x32, and no picture
    assert_refused(command("scripts.report", *OWN, "--arch", DECLARED), 2, "--arch names 2 networks")
    assert_refused(command("scripts.report"), 2, "the following arguments are required: F")
