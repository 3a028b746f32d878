"""Pictures cropped by ImageNet's recipe, from training to a packed file: every command crops them as in training."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from torch import Tensor

from deploy.executors import choose
from engine.data import catalogue
from engine.errors import USAGE
from tests.conftest import NARROW, assert_refused
from tests.tools import folders
from tests.tools.contents import raw

Command = Callable[..., SimpleNamespace]
CPU = ("--cpu", "--quiet")
DATA = ("--data", "pets", "--num_workers", "0")
FAST = ("--epochs", "1", "--train_batch_size", "8", "--precision", "fp32", *CPU, *DATA)
TRAIN = ("prune.train", "--dataset", "imagefolder", "--crop", "imagenet", "--image_size", "8", "--cfg", NARROW, *FAST)


@pytest.fixture
def pets(workplace: Path) -> Path:
    """Write pictures of many sizes in ImageNet's layout."""
    return folders.write(
        workplace / "pets", {"train": 12, "val": 5}, ("n01440764", "n01443537"), lambda draws: draws.integers(9, 40, 2),
        ".JPEG",
    )  # fmt: skip


def crop(path: str) -> str | None:
    return raw(Path(path))["dataset"].get("crop")


def test_files_say_it_and_later_stages_take_it_from_them(command: Command, pets: Path) -> None:
    first = command(*[word for word in TRAIN if word != "--quiet"])
    assert first.code == 0, first.err
    assert "pets: 24 training and 10 test pictures, mirrored in training, --crop imagenet; " in first.err
    assert (crop(first.path), raw(Path(first.path))["format_version"]) == ("imagenet", 3)
    assert "--crop imagenet" in command("engine.checkpoint.__main__", "inspect", first.path).out
    refined = command("prune.train", "--refine", first.path, *FAST)
    for done in (
        refined,
        command("prune.normal_regular", "--percent", "0.2", "--model", first.path, *CPU[:1], *DATA),
        command("quant.ptq", "--model", first.path, *CPU, *DATA),
    ):
        assert done.code == 0, done.err
        assert crop(done.path) == "imagenet"
    judged = command("prune.train", "--evaluate", refined.path, *CPU, *DATA)
    assert judged.out.splitlines()[0] == refined.out.splitlines()[0]
    assert judged.err == ""
    other = command("prune.train", "--evaluate", refined.path, "--crop", "shift", *CPU, *DATA)
    assert other.err == "notice: the pictures are cut by --crop shift, but the file is for --crop imagenet\n"
    again = command("prune.train", "--refine", first.path, "--crop", "shift", *FAST)
    assert (crop(again.path), raw(Path(again.path))["format_version"]) == (None, 1)
    assert_refused(
        command("prune.train", "--dataset", "digits", "--crop", "imagenet"), USAGE, "--crop imagenet", "not for digits"
    )


class Spied:
    """An executor that records its input."""

    def __init__(self, executor: Any, seen: list[Tensor]) -> None:
        self.executor, self.seen, self.name, self.how = executor, seen, executor.name, executor.how

    def __call__(self, x: Tensor) -> Tensor:
        self.seen.append(x)
        return self.executor(x)


def test_a_packed_file_sees_a_picture_as_the_training_judges_it(
    command: Command, pets: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    trained = command(*TRAIN)
    assert trained.code == 0, trained.err
    path = command("deploy.pack", "--model", trained.path, "--ends", "float").path
    seen, real = list[Tensor](), choose.choose
    monkeypatch.setattr(choose, "choose", lambda *how: Spied(real(*how), seen))
    names = sorted(map(str, pets.glob("val/*/*")))
    done = command("deploy.run", "--model", path, *names, "--executor", "torch", "--json")
    assert done.code == 0, done.err
    data = catalogue.load("imagefolder", pets, image_size=8, workers=0, crop="imagenet")
    assert torch.equal(seen.pop(), next(data.test.batches(10))[0])
    assert {one["name"] for each in json.loads(done.out)["pictures"] for one in each["classes"]} == set(
        data.info.names or ()
    )
    judged = command("deploy.run", "--model", path, "--evaluate", "--executor", "torch", *DATA, "--json")
    assert judged.code == 0, judged.err
    assert torch.equal(torch.cat(seen), next(data.test.batches(10))[0])
    assert json.loads(judged.out)["accuracy"] == raw(Path(trained.path))["best_acc"]
    refused = command("deploy.run", "--model", path, names[0], "--crop", "shift")
    assert_refused(refused, USAGE, "--crop goes with --evaluate, not with pictures")


def test_an_onnx_model_says_it(command: Command, pets: Path) -> None:
    onnx = pytest.importorskip("onnx")
    trained = command(*TRAIN)
    done = command("deploy.onnx", "--model", trained.path)
    assert done.code == 0, done.err
    assert {each.key: each.value for each in onnx.load(done.path).metadata_props}["crop"] == "imagenet"
