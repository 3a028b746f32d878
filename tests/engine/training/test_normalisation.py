"""Normalisation of pixels: the flags' mean and std, else the file's, else the data set's; original files use the original's."""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
import torch
import torchvision
from PIL import Image

import models
from engine.checkpoint.format import Checkpoint, Metrics
from engine.checkpoint.history import Original, Train
from engine.checkpoint.provenance import Provenance
from engine.data import catalogue
from engine.data.info import DataInfo
from engine.training.choose_data import open_data, say_other_pictures
from prune import train
from tests.conftest import NARROW, SMALL, assert_refused
from tests.tools.contents import raw
from tests.tools.original import prefixed, under_its_names

Command = Callable[..., SimpleNamespace]
MEAN, STD = catalogue.ORIGINAL
OWN = ("--mean", "0.1,0.2,0.3", "--std", "0.4,0.5,1")
HERE = ("--image_size", 8, "--epochs", 1, "--train_batch_size", 20, "--quiet", "--cpu", "--precision", "fp32")


@pytest.fixture
def copy(workplace: Path) -> tuple[str, ...]:
    """Write old.pth as the original repository saves it and a folder that names itself a copy of CIFAR-10; return the flags for it."""
    draws = np.random.default_rng(0)
    for part in ("train", "test"):
        for number in range(10):
            place = workplace / "pictures" / part / str(number)
            place.mkdir(parents=True)
            for name in "ab":
                Image.fromarray(draws.integers(0, 256, (8, 8, 3), np.uint8)).save(place / f"{name}.png")
    Path("pictures/dataset.json").write_text(json.dumps({"label": "CIFAR-10 (JPEG copy)"}))
    torch.save(under_its_names(models.build("nin", [8] * 8).state_dict()), "old.pth")
    return ("--dataset", "imagefolder", "--data", "pictures")


def normalised(path: str | Path) -> tuple[tuple[float, ...], tuple[float, ...]]:
    dataset = raw(Path(path))["dataset"]
    return tuple(dataset["mean"]), tuple(dataset["std"])


def test_files_of_the_original_are_refined_as_they_were_trained(command: Command, copy: tuple[str, ...]) -> None:
    told = (
        "notice: the file is in the original repository's format: pictures are normalised as in that repository, "
        "mean 0.4914,0.4822,0.4465, std 0.2023,0.1994,0.201 (override with --mean and --std)\n"
    )
    done = command("prune.train", "--refine", "old.pth", *copy, *HERE, "--save", "new.pth")
    assert (done.code, told in done.err, normalised("new.pth")) == (0, True, (MEAN, STD))
    done = command("quant.wqaq", "--refine", "new.pth", *copy[2:], *HERE, "--save", "next.pth")  # the file holds it now
    assert (done.code, told in done.err, normalised("next.pth")) == (0, False, (MEAN, STD))
    done = command("prune.train", "--refine", "old.pth", *copy, *HERE, *OWN, "--save", "new.pth")
    assert (done.code, told in done.err) == (0, False)
    assert normalised("new.pth") == ((0.1, 0.2, 0.3), (0.4, 0.5, 1))


def opened(parent: Checkpoint, copy: tuple[str, ...], *flags: str, fresh: bool = False) -> tuple:
    options = train.parser().options_of((*copy, "--image_size", "8", "--num_workers", "0", *flags))
    info = open_data(options, torch.device("cpu"), parent, fresh).info
    return info.mean, info.std


def test_whose_mean_and_std_are_taken(command: Command, copy: tuple[str, ...]) -> None:
    original = Checkpoint(
        "nin", {"classes": 10}, [8] * 8, {}, (Original(),), DataInfo.unknown(10), Metrics(0.0), Provenance()
    )
    cifar, digits = (catalogue.describe(name, 8) for name in ("cifar10", "digits"))
    pictures = catalogue.load("imagefolder", Path("pictures"), image_size=8).info
    own = pictures.mean, pictures.std
    assert own != (MEAN, STD)
    assert opened(original, copy) == (MEAN, STD)
    assert opened(replace(original, dataset=cifar), copy) == (MEAN, STD)  # as converted
    assert opened(original, copy, "--std", "1,1,1") == (MEAN, (1, 1, 1))
    for other in (
        replace(original, arch="my:net"),
        replace(original, history=(Train(),)),
        replace(original, history=(Original(elsewhere=True),)),
        replace(original, dataset=digits),
    ):
        assert opened(other, copy) == own
    assert opened(original, copy, fresh=True) == own  # only widths are read
    Path("pictures/dataset.json").unlink()
    assert opened(original, copy) == own  # unknown pictures


def test_flags_override_the_file_and_the_data_set(command: Command, workplace: Path) -> None:
    line = ("prune.train", "--cfg", NARROW, *SMALL)
    assert command(*line, *OWN).code == 0
    assert normalised("models_save/nin.pth") == ((0.1, 0.2, 0.3), (0.4, 0.5, 1))
    assert (
        command("quant.ptq", "--model", "models_save/nin.pth", "--cpu", "--std", "1,1,1", "--save", "q.pth").code == 0
    )
    assert normalised("q.pth") == ((0.1, 0.2, 0.3), (1, 1, 1))
    done = command(*line, "--resume")
    assert_refused(done, 2, "data_mean [0.1, 0.2, 0.3] -> ")
    assert command(*line, *OWN, "--resume").code == 0


def test_a_converted_file_says_how_it_was_trained(command: Command, copy: tuple[str, ...]) -> None:
    line = ("scripts.convert", "old.pth", "new.pth")
    assert command(*line, "--dataset", "cifar10").code == 0
    assert normalised("new.pth") == (MEAN, STD)
    assert command(*line, "--dataset", "digits", "--mean", "0,0.5,1").code == 0
    assert normalised("new.pth") == ((0, 0.5, 1), catalogue.describe("digits", 32).std)
    assert_refused(command(*line, "--std", "1,1,1"), 2, "--std without --dataset has no effect")
    assert_refused(
        command("scripts.convert", "new.pth", "x.pth", "--mean", "0,0,0"), 2, "--mean: new.pth already records it"
    )


def test_weights_under_our_own_names_are_not_taken_for_the_originals(command: Command, copy: tuple[str, ...]) -> None:
    torch.save(models.build("nin", [8] * 8).state_dict(), "bare.pth")
    pictures = catalogue.load("imagefolder", Path("pictures"), image_size=8).info
    line = ("prune.train", "--refine", "bare.pth", *copy, *HERE)
    done = command(*line, "--save", "new.pth")
    assert (
        "notice: bare.pth holds weights and does not describe them; read as nin [8, 8, 8, 8, 8, 8, 8, 8]\n" in done.err
    )
    assert (
        "notice: the file does not say how its pictures were normalised: assuming CIFAR-10 (JPEG copy), mean "
        in done.err
    )
    assert "original" not in done.err
    assert normalised("new.pth") == (pictures.mean, pictures.std)
    done = command(*line, *OWN, "--save", "own.pth")
    assert "how its pictures were normalised" not in done.err
    assert normalised("own.pth") == ((0.1, 0.2, 0.3), (0.4, 0.5, 1))


def test_convert_takes_only_the_originals_names_for_its_files(command: Command, workplace: Path) -> None:
    """Another network may share a key name with them, such as features.0.weight."""
    cifar = catalogue.describe("cifar10", 32)
    torch.save(models.build("nin", [8] * 8).state_dict(), "bare.pth")
    torch.save(torchvision.models.squeezenet1_1(num_classes=10).state_dict(), "squeeze.pth")
    for path, named in (("bare.pth", ()), ("squeeze.pth", ("--arch", "torchvision:squeezenet1_1"))):
        done = command("scripts.convert", path, "made.pth", "--dataset", "cifar10", *named)
        assert f"notice: {path} does not say how its pictures were normalised: assuming CIFAR-10, mean " in done.err
        assert normalised("made.pth") == (cifar.mean, cifar.std) != (MEAN, STD)
        assert raw(Path("made.pth"))["transforms"] == [{"stage": "original", "elsewhere": True}]


def test_the_originals_files_are_known_among_weights(command: Command, copy: tuple[str, ...]) -> None:
    torch.save(prefixed(torch.load("old.pth")), "wrapped.pth")
    for path in ("old.pth", "wrapped.pth"):
        done = command("prune.train", "--arch", "nin", "--weights", path, *copy, *HERE, "--save", "new.pth")
        assert (done.code, normalised("new.pth")) == (0, (MEAN, STD)), done.err
        assert raw(Path("new.pth"))["transforms"][0] == {"stage": "original"}


@pytest.mark.parametrize("known", [True, False])
def test_another_normalisation_than_the_files_is_told(known: bool, capsys: pytest.CaptureFixture[str]) -> None:
    file = DataInfo("digits" if known else "unknown", "a set", 10, 8, (0.5, 0.4, 0.3), (0.3, 0.2, 0.25))
    say_other_pictures(file, file.normalised(file.mean, file.std))
    assert capsys.readouterr().err == ""
    say_other_pictures(file, file.normalised((0.5,) * 3, file.std))
    said = "notice: the pictures have another normalisation than the file's --mean 0.5,0.4,0.3 --std 0.3,0.2,0.25\n"
    assert capsys.readouterr().err == (said if known else "")
