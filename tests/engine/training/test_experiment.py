"""Common behaviour of commands: settings that change the run are refused on resume, and odd paths give two-line errors."""

from __future__ import annotations

import itertools
import os
from pathlib import Path

import pytest
import torch
from PIL import Image

from tests.conftest import NARROW, SMALL, assert_refused
from tests.tools.contents import raw
from tests.tools.original import under_its_names

FLAGS = ("--cfg", NARROW, *SMALL)


@pytest.mark.parametrize(("flag", "value"), [("--image_size", 16), ("--classes", 12), ("--val", 100), ("--seed", 2)])
def test_resume_refuses_another_run(flag: str, value: int, command) -> None:
    assert command("prune.train", *FLAGS).code == 0
    before = Path("models_save/nin.pth").read_bytes()
    done = command("prune.train", *FLAGS, "--resume", flag, value)
    assert done.code == 2
    assert "belongs to a run with other settings" in done.err
    assert Path("models_save/nin.pth").read_bytes() == before


def test_the_seed_recipe_freezes_ranges_in_its_own_last_quarter(command, monkeypatch: pytest.MonkeyPatch) -> None:
    import quant.hooks

    asked = []
    real = quant.hooks.each_epoch
    monkeypatch.setattr(quant.hooks, "each_epoch", lambda epochs: (asked.append(epochs), real(epochs))[1])
    monkeypatch.setattr("engine.training.loop.fit", lambda *_, **__: [{"epoch": 1}])
    flags = [f for f in FLAGS if f not in ("--epochs", "1")]
    assert command("quant.wqaq", "--q_type", 1, "--recipe", "seed", *flags).code == 0
    assert asked == [30]


def test_paths_that_are_no_files(command) -> None:
    os.mkfifo("pipe")
    for path, code in (("pipe", 6), ("x" * 300, 6), ("x" * 300 + "/a.pth", 6)):
        done = command("prune.train", *FLAGS, "--save", path)
        assert (done.code, done.err.count("\n")) == (code, 2), done.err
    Path("loop.pth").symlink_to("loop.pth")
    for flag in ("--save", "--refine"):
        done = command("prune.train", *SMALL, flag, "loop.pth")
        assert_refused(done, 2, f"argument {flag}: 'loop.pth' is a link that leads to itself")
    done = command("prune.normal_regular", "--model", "x" * 300)
    assert (done.code, done.err.count("\n")) == (3, 2)


def test_pictures_that_were_trained_on_are_not_held_out(command) -> None:
    """A smaller --val holds out a part of the pictures that a larger one holds out."""
    assert command("prune.train", *FLAGS, "--save", "all.pth").code == 0
    assert command("prune.train", *FLAGS, "--save", "most.pth", "--val", 400).code == 0
    assert raw(Path("most.pth"))["transforms"] == [{"stage": "train", "epochs": 1, "val": 400}]
    assert_refused(
        command("prune.train", "--evaluate", "all.pth", "--val", 1),
        2,
        "holds out pictures that the file was trained on",
    )
    assert_refused(command("prune.normal_regular", "--model", "most.pth", "--val", 401), 2, "--val 401")
    for val in (0, 399, 400):
        done = command("prune.train", "--evaluate", "most.pth", "--val", val)
        assert f"({val or 360} pictures)" in done.out, done.err


def test_what_may_be_held_out_of_other_files(command) -> None:
    """A state_dict may have been trained on every picture, the original repository's too; a control run takes only widths."""
    assert command("prune.train", "-sr", *FLAGS).code == 0
    assert command("prune.normal_regular").code == 0
    content = raw(Path("models_save/nin_preprune.pth"))
    for state in (content["state_dict"], under_its_names(content["state_dict"])):
        torch.save({"cfg": content["cfg"], "state_dict": state}, "old.pth")
        done = command("prune.train", "--refine", "old.pth", *SMALL, "--val", 9)
        assert "error: --val 9 holds out pictures that the file was trained on" in done.err
    assert command("prune.train", "--from_scratch", *SMALL, "--val", 9).code == 0


def test_two_files_of_one_name_share_a_folder_and_it_is_said(command) -> None:
    notice = "notice: runs/n held the run of one/n.pth; the run of two/n.pth replaces its metrics and state"
    for folder in ("one", "two"):
        done = command("prune.train", *FLAGS, "--save", f"{folder}/n.pth")
        assert (done.code, notice in done.err) == (0, folder == "two")


@pytest.mark.parametrize("name", ["state.pth", "state.prev.pth", "metrics.csv"])
def test_what_the_run_keeps_for_itself_is_not_replaced(name: str, command) -> None:
    done = command("prune.train", *FLAGS, "--run_dir", "here", "--save", f"here/{name}")
    assert_refused(done, 2, f"here/{name} is the run folder's own {name}")
    assert os.listdir("here") == []


def test_other_classes_than_those_of_the_file(command) -> None:
    """The number of classes and the pictures are equal; only the folders' names differ."""
    for names in (("ant", "bee"), ("ant", "wasp")):
        for part, name in itertools.product(("train", "test"), names):
            place = Path(names[1], part, name)
            place.mkdir(parents=True)
            for number in range(4):
                Image.new("RGB", (8, 8), (number * 60, 0, 0)).save(place / f"{number}.png")
    folder = ("--dataset", "imagefolder", *SMALL[2:], "--data")
    assert command("prune.train", "--cfg", NARROW, *folder, "bee").code == 0
    assert raw(Path("models_save/nin.pth"))["dataset"]["names"] == ["ant", "bee"]
    done = command("prune.train", "--cfg", NARROW, *folder, "wasp", "--resume")
    assert done.err.splitlines()[0].endswith("other settings: data_label bee -> wasp"), "its mean goes without saying"
    assert command("prune.train", "--evaluate", "--data", "bee").code == 0
    done = command("prune.train", "--evaluate", "--data", "wasp")
    assert_refused(done, 3, "the file was made for other classes: bee, but here wasp")
    done = command("prune.train", "--refine", "models_save/nin.pth", *folder, "wasp")  # stated explicitly
    assert (done.code, done.err.splitlines()[0]) == (
        0,
        "warning: the file was made for other classes: bee, but here wasp",
    )


def test_a_link_stays_a_link(command) -> None:
    Path("real").mkdir()
    Path("link.pth").symlink_to("real/file.pth")
    assert command("prune.train", *FLAGS, "--save", "link.pth").code == 0
    assert Path("link.pth").is_symlink()
    assert Path("real/file.pth").is_file()


def test_pictures_are_normalised_as_those_the_network_was_trained_on() -> None:
    from engine.checkpoint.format import Checkpoint, Metrics
    from engine.checkpoint.provenance import Provenance
    from engine.training.choose_data import open_data
    from prune import train

    options = train.parser().options_of(("--dataset", "digits", "--image_size", "8"))
    plain = open_data(options, torch.device("cpu"))
    stored = plain.info.normalised((0.1, 0.2, 0.3), (0.4, 0.5, 2.0))
    parent = Checkpoint("nin", {"classes": 10}, [8] * 8, {}, (), stored, Metrics(0.0), Provenance())
    plain = open_data(options, torch.device("cpu"))
    data = open_data(options, torch.device("cpu"), parent)
    assert (data.info.mean, data.info.std) == ((0.1, 0.2, 0.3), (0.4, 0.5, 2.0))
    for ours, theirs in ((data.train, plain.train), (data.test, plain.test)):
        (picture, _), (other, _) = next(ours.batches(2)), next(theirs.batches(2))
        pixels = other.permute(0, 2, 3, 1) * torch.tensor(plain.info.std) + torch.tensor(plain.info.mean)
        wanted = (pixels - torch.tensor([0.1, 0.2, 0.3])) / torch.tensor([0.4, 0.5, 2.0])
        torch.testing.assert_close(picture.permute(0, 2, 3, 1), wanted, rtol=1e-4, atol=1e-5)
