"""The whole chain of commands on detectors: a small user's detector, and torchvision's SSDlite."""

from __future__ import annotations

import json
import re
import shlex
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from safetensors import safe_open

from engine.data.detection import scenes
from tests.tools import boxed
from tests.tools.own_detector import NETWORK, OWN
from tests.tools.readme import lines, marked

pytest.importorskip("pycocotools")

SHORT = ("--cpu", "--quiet", "--epochs", "1", "--train_batch_size", "16", "--precision", "fp32")


@pytest.fixture
def few(monkeypatch: pytest.MonkeyPatch, workplace: Path) -> None:
    """Use few and small scenes, and a user's detector."""
    whole = scenes.read
    monkeypatch.setattr(scenes, "read", lambda size: whole(size, (48, 12)))
    Path("cells.py").write_text(NETWORK)


@pytest.mark.usefixtures("few")
def test_the_chain_on_a_detector_of_ones_own(command: Callable) -> None:
    core, scenes64 = ("--core", "trunk,top"), ("--dataset", "scenes", "--image_size", "64")
    made = command("prune.train", *OWN, *core, "-sr", "--s", "0.001", *scenes64, *SHORT)
    assert made.code == 0, made.err
    assert "test mAP" in made.out
    pruned = command("prune.normal_regular", *OWN, "--percent", "0.4", "--normal_regular", "4", "--cpu")
    assert pruned.code == 0, pruned.err
    refined = command("prune.train", *OWN, "--refine", *SHORT)
    assert refined.code == 0, refined.err
    for words in (
        ("quant.wqaq", "--q_type", "0", "--bn_fold", "1"),
        ("quant.wqaq", "--quantizer", "lsq", "--Wbits", "4", "--Abits", "4"),
    ):
        quantized = command(words[0], *OWN, *words[1:], "--refine", *SHORT)
        assert quantized.code == 0, quantized.err
    calibrated = command("quant.ptq", *OWN, "--cpu", "--quiet")
    assert calibrated.code == 0, calibrated.err
    merged = command("bn_merge.__main__", *OWN, "--model", calibrated.path, "--cpu", "--json")
    assert merged.code == 0, merged.err
    told = json.loads(merged.out)
    assert told["agree"] == 12
    assert {"mAP", "mAP_before"} <= told.keys()
    compared = command("bn_merge.compare", *OWN, calibrated.path, told["path"], "--cpu", "--float64")
    assert compared.code == 0, compared.err
    assert "same answer   12 of 12" in compared.out
    report = command("scripts.report", *OWN, refined.path, told["path"], "--save", "table.md")
    assert report.code == 0, report.err
    assert "| mAP " in report.out
    packed = command("deploy.pack", *OWN, "--model", told["path"], "--save", "cells.safetensors")
    assert packed.code == 0, packed.err
    judged = [command("deploy.run", "--model", "cells.safetensors", *OWN, "--evaluate", "--executor", name, "--json")
              for name in ("reference", "native")]  # fmt: skip
    assert [one.code for one in judged] == [0, 0], judged[0].err
    assert json.loads(judged[0].out)["mAP"] == json.loads(judged[1].out)["mAP"]

    pictures = np.random.default_rng(0).integers(0, 256, (90, 120, 3), np.uint8)
    Image.fromarray(pictures).save("photo.png")
    seen = command(
        "deploy.run", "--model", "cells.safetensors", *OWN, "--score", "0", "--draw", "found", "photo.png", "--json"
    )
    assert seen.code == 0, seen.err
    (picture,) = json.loads(seen.out)["pictures"]
    assert picture["boxes"]
    assert Image.open("found/photo.png").size == (120, 90)
    over = command("deploy.run", "--model", "cells.safetensors", *OWN, "--draw", ".", "photo.png")
    assert over.code == 2
    assert "photo.png is both input and output" in over.err
    assert Image.open("photo.png").size == (120, 90)
    with safe_open("cells.safetensors", "pt") as file:
        assert file.metadata()["packed"].startswith("3 ")  # versions without detectors refuse it
    other = command("prune.train", *OWN, "--core", "top", "--refine", pruned.path, *SHORT)
    assert other.code == 2
    assert "--core top: the file has trunk,top" in other.err
    alone = command("deploy.run", "--model", "cells.safetensors", "photo.png")
    assert alone.code == 2
    assert "add --arch cells.py:net" in alone.err


@pytest.mark.usefixtures("few")
def test_a_classifier_and_boxes_do_not_meet(command: Callable) -> None:
    found = command(
        "prune.train", "--arch", "nin", "--cfg", "8,8,8,8,8,8,8,8", "--dataset", "scenes", "--image_size", "32", *SHORT
    )
    assert found.code == 2
    assert "error: digit scenes (composed) has boxes, but nin is not a detector" in found.err
    found = command("prune.train", *OWN, "--core", "trunk,top", "--dataset", "digits", *SHORT)
    assert found.code == 2
    assert "is a detector, but digits has no boxes" in found.err


def test_a_detector_without_pictures_is_refused_at_once(command: Callable, monkeypatch: pytest.MonkeyPatch) -> None:
    """It neither looks for CIFAR-10, nor takes other pictures in its place."""

    def never(*_: object, **__: object) -> None:
        raise AssertionError("pictures are looked for")

    monkeypatch.setattr("engine.data.catalogue.load", never)
    monkeypatch.setattr("engine.data.catalogue.has_cifar10", never)
    Path("cells.py").write_text(NETWORK)
    torch.save({}, "weights.pth")
    library = ("--arch", "torchvision:ssdlite320_mobilenet_v3_large")
    for words in (library, (*library, "--weights", "weights.pth"), (*library, "--dataset", "auto"),
                  (*OWN, "--core", "trunk,top")):  # fmt: skip
        found = command("prune.train", *words, *SHORT)
        assert found.code == 2, found.err
        assert f"error: {words[1]} is a detector, and needs pictures with boxes" in found.err
        assert "hint: add --dataset scenes, or --dataset coco or yolo with --data DIR" in found.err


FOLDERS = {"coco": boxed.coco_folder, "yolo": boxed.yolo_folder}


@pytest.mark.usefixtures("few")
@pytest.mark.parametrize("name", FOLDERS)
def test_a_folder_of_ten_pictures_through_the_chain(name: str, command: Callable) -> None:
    FOLDERS[name](Path("data"))
    small = ("--image_size", "32", "--num_workers", "0")
    made = command("prune.train", *OWN, "--core", "trunk,top", "-sr", "--s", "0.001", "--dataset", name, *small, *SHORT)
    assert made.code == 0, made.err
    pruned = command("prune.normal_regular", *OWN, "--percent", "0.3", "--cpu", "--num_workers", "0")
    assert pruned.code == 0, pruned.err
    quantized = command(
        "quant.wqaq", *OWN, "--q_type", "1", "--bn_fold", "0", "--refine", pruned.path, "--num_workers", "0", *SHORT
    )
    assert quantized.code == 0, quantized.err
    merged = command("bn_merge.__main__", *OWN, "--model", quantized.path, "--cpu", "--json", "--num_workers", "0")
    assert merged.code == 0, merged.err
    assert json.loads(merged.out)["agree"] == 4
    packed = command("deploy.pack", *OWN, "--model", json.loads(merged.out)["path"], "--save", "cells.safetensors")
    assert packed.code == 0, packed.err
    judged = command("deploy.run", "--model", "cells.safetensors", *OWN, "--evaluate", "--num_workers", "0", "--json")
    assert judged.code == 0, judged.err
    assert json.loads(judged.out)["mAP"] == pytest.approx(json.loads(merged.out)["mAP"], abs=5)
    Path("data").rename("elsewhere")
    moved = command("quant.wqaq", *OWN, "--evaluate", quantized.path, "--cpu")
    assert moved.code == 4
    assert "add --data DIR" in moved.err


@pytest.mark.usefixtures("few")
def test_the_smallest_example(command: Callable) -> None:
    """The first block of docs/detectors.md, with few and small scenes."""
    (block,) = marked("detectors-small")
    Image.fromarray(np.zeros((50, 60, 3), np.uint8)).save("photo.jpg")
    for module, argv, _ in lines(block):
        more = (*SHORT, "--image_size", "64") if module == "prune.train" else ()
        done = command(module, *argv, *more)
        assert done.code == 0, f"{module} {argv}\n{done.err}"
    assert Path("found/photo.png").is_file()


@pytest.mark.slow
@pytest.mark.usefixtures("few")
def test_the_chain_of_the_page_on_detectors(command: Callable) -> None:
    """Run every line of docs/detectors.md's chain with few and small scenes."""
    block = marked("detectors")[0].text
    names = dict(re.findall(r'^(\w+)="(.*)"$', block, re.M))
    Image.fromarray(np.zeros((50, 60, 3), np.uint8)).save("photo.jpg")
    for line in re.findall(r"^python -m (.*)$", block, re.M):
        module, *words = shlex.split(re.sub(r"\$(\w+)", lambda found: names[found[1]], line))
        if module.startswith("prune.train"):
            words += [*SHORT, "--image_size", "64"]
        done = command({"bn_merge": "bn_merge.__main__"}.get(module, module), *words)
        assert done.code == 0, f"{line}\n{done.err}"
    assert Path("found/photo.png").is_file()


@pytest.mark.slow
@pytest.mark.usefixtures("few")
def test_a_yolo_of_ultralytics(command: Callable) -> None:
    """Run the file of docs/detectors.md if Ultralytics is installed."""
    pytest.importorskip("ultralytics")
    Path("yolo.py").write_text(marked("detector: yolo.py")[0].text)
    own = ("--arch", "yolo.py:net")
    made = command("prune.train", *own, "--core", "net", "-sr", "--dataset", "scenes", "--image_size", "64", *SHORT)
    assert made.code == 0, made.err
    pruned = command("prune.normal_regular", *own, "--percent", "0.4", "--normal_regular", "8", "--cpu")
    assert pruned.code == 0, pruned.err
    before, after = re.findall(r"parameters +([\d,]+) -> ([\d,]+)", pruned.out)[0]
    assert int(after.replace(",", "")) < 0.65 * int(before.replace(",", ""))
    quantized = command("quant.wqaq", *own, "--q_type", "1", "--bn_fold", "1", "--refine", pruned.path, *SHORT)
    assert quantized.code == 0, quantized.err
    merged = command("bn_merge.__main__", *own, "--model", quantized.path, "--cpu")
    assert merged.code == 0, merged.err
    assert "the same answer on 12 of them" in merged.out
    packed = command("deploy.pack", *own, "--model", merged.path, "--save", "yolo.safetensors")
    assert packed.code == 0, packed.err
    judged = command("deploy.run", "--model", "yolo.safetensors", *own, "--evaluate", "--executor", "reference")
    assert judged.code == 0, judged.err


@pytest.mark.usefixtures("few")
def test_weights_for_other_classes_keep_all_but_the_head(command: Callable) -> None:
    """torchvision's COCO weights are like this: 90 classes and a background, normalised by the detector's own transform."""
    from torchvision.models import get_model

    name = "ssdlite320_mobilenet_v3_large"
    theirs = get_model(name, weights=None, weights_backbone=None, num_classes=91).state_dict()
    torch.save({key: value for key, value in theirs.items() if "num_batches" not in key}, "coco.pth")
    pictures = ("--weights", "coco.pth", "--dataset", "scenes", "--image_size", "64")
    made = command("prune.train", "--arch", f"torchvision:{name}", *pictures, *SHORT)
    assert made.code == 0, made.err
    assert (
        "and 7 more are initialised afresh: the file has 90 classes, but digit scenes (composed) asks for 10"
        in made.err
    )
    assert "normalised as in the network's own code, mean 0.5,0.5,0.5, std 0.5,0.5,0.5" in made.err
    stored = torch.load(made.path, weights_only=True)
    assert stored["dataset"]["std"] == [0.5] * 3
    refused = command("quant.ptq", "--arch", f"torchvision:{name}", *pictures, "--cpu")
    assert refused.code == 2
    assert "coco.pth has 90 classes, but digit scenes (composed) asks for 10" in refused.err
