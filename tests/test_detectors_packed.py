"""Packed files and ONNX models of detectors describe the core's tensors and the code that makes boxes."""

from __future__ import annotations

import importlib
import json
import math
import re
import sys
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from torchvision.models import get_model

from deploy import file, packed
from deploy.executors.choose import choose
from deploy.packed_detector import PackedDetector, read_detector
from engine.data.detection import scenes
from engine.errors import UserError
from models import registry
from models.detectors.core import Core
from models.graph.capture import cache
from tests.conftest import assert_refused
from tests.tools.own_detector import NETWORK, OWN
from tests.tools.readme import lines, marked

pytest.importorskip("pycocotools")

SSDLITE = "torchvision:ssdlite320_mobilenet_v3_large"
WITH_SETTING = NETWORK.replace("super().__init__()", "super().__init__()\n        self.nms_thresh = 0.25").replace(
    "nms(boxes, scores, 0.5)", "nms(boxes, scores, self.nms_thresh)"
)
PACKED, OLD = Path("cells.safetensors"), Path("old.safetensors")
RUN = ("deploy.run", *OWN, "--score", "0", "photo.png", "--model")


@pytest.fixture
def made(monkeypatch: pytest.MonkeyPatch, workplace: Path, command: Callable) -> None:
    """Pack a small detector whose own code has a nms_thresh, trained for an epoch on few scenes."""
    whole = scenes.read
    monkeypatch.setattr(scenes, "read", lambda size: whole(size, (48, 12)))
    Path("cells.py").write_text(WITH_SETTING)
    pictures = np.random.default_rng(0).integers(0, 256, (64, 64, 3), np.uint8)
    Image.fromarray(pictures).save("photo.png")
    flags = ("--dataset", "scenes", "--image_size", "64", "--cpu", "--quiet", "--epochs", "1", "--precision", "fp32")
    trained = command("prune.train", *OWN, "--core", "trunk,top", *flags)
    assert trained.code == 0, trained.err
    done = command("deploy.pack", *OWN, "--model", trained.path, "--save", PACKED)
    assert done.code == 0, done.err


def change(old: str, new: str) -> None:
    """Write the user's code with a change, and forget the code that was imported, as a new process would."""
    assert old in WITH_SETTING
    Path("cells.py").write_text(WITH_SETTING.replace(old, new))
    for path in Path("__pycache__").glob("cells*"):  # Python sees a change by the size and whole seconds
        path.unlink()
    for name, module in list(sys.modules.items()):
        if str(getattr(module, "__file__", "")).endswith("cells.py"):
            del sys.modules[name]
    cache.forget()
    importlib.invalidate_caches()


def in_format_2() -> None:
    """Write the packed file as the version before wrote it."""
    found = file.read(PACKED)
    del found.description["detector"]
    file.write(OLD, replace(found, version=2))


@pytest.mark.usefixtures("made")
def test_boxes_are_made_with_the_settings_that_were_packed(command: Callable) -> None:
    listed = command("deploy.pack", "--inspect", PACKED)
    assert re.search(r"digit scenes \(composed\), mAP \d+\.\d\d % before it was packed", listed.out)
    assert "answer: top 15x8x8\n" in listed.out
    assert "boxes: nms_thresh 0.25\n" in listed.out
    (trained,) = Path("models_save").glob("*.pth")
    inspected = command("engine.checkpoint.__main__", "inspect", trained).out
    assert re.search(r"^mAP         \d+\.\d\d %, evaluated on test, 12 pictures$", inspected, re.MULTILINE)
    assert "accuracy" not in inspected
    said = json.loads(command("deploy.pack", "--inspect", PACKED, "--json").out)["detector"]
    assert said == {"outputs": [{"name": "top", "shape": [15, 8, 8]}], "settings": {"nms_thresh": 0.25}}
    right = command(*RUN, PACKED)
    assert right.code == 0, right.err
    assert_refused(command(*RUN, PACKED, "--top", "2"), 2, f"--top is for classifiers, and {PACKED} holds a detector")
    in_format_2()
    for old, new, words in (
        ("nms_thresh = 0.25", "nms_thresh = 0.6", "nms_thresh is 0.6 in the code of cells.py:net, and 0.25 in the packed file"),
        ("self.nms_thresh", "self.threshold", "nms_thresh is missing in the code of cells.py:net, and 0.25 in the packed"),
    ):  # fmt: skip
        change(old, new)
        assert_refused(command(*RUN, PACKED), 2, words)
        assert_refused(command("deploy.run", *OWN, "--evaluate", "--model", PACKED), 2, words)
    change("0.25", "0.25")
    old = command(*RUN, OLD)
    assert old.code == 0, old.err
    assert old.out == right.out
    assert "does not say with which settings boxes are made: those of the code are taken" in old.err
    assert "settings boxes are made" not in right.err


@pytest.mark.usefixtures("made")
def test_the_formats_are_told_apart(command: Callable) -> None:
    assert packed.open(PACKED).detector == PackedDetector((("top", (15, 8, 8)),), {"nms_thresh": 0.25})
    packed.save(packed.open(PACKED), Path("again.safetensors"))
    assert Path("again.safetensors").read_bytes() == PACKED.read_bytes()
    in_format_2()
    assert packed.open(OLD).detector is None
    packed.save(packed.open(OLD), Path("again.safetensors"))
    assert Path("again.safetensors").read_bytes() == OLD.read_bytes()
    found = file.read(PACKED)
    file.write(OLD, replace(found, version=2))
    assert_refused(
        command("deploy.pack", "--inspect", OLD), 3, "it holds a detector, which does not belong in format 2"
    )
    del found.description["detector"]
    file.write(OLD, replace(found, version=3))
    assert_refused(
        command("deploy.pack", "--inspect", OLD), 3, "it holds a detector, which does not belong in format 3"
    )


GOOD = {"outputs": [{"name": "a", "shape": [2, 3]}, {"name": "b", "shape": [4]}], "settings": {"n": [[1, 0.5], True]}}


@pytest.mark.parametrize(
    ("said", "words"),
    [
        ([], "a detector is written as"),
        ({"outputs": []}, "a detector is written as"),
        ({**GOOD, "outputs": {}}, "its outputs are written as"),
        ({**GOOD, "outputs": [{"name": 1, "shape": [10]}]}, "its outputs are written as"),
        ({**GOOD, "outputs": [{"name": "a", "shape": [-10]}]}, "its outputs are written as"),
        ({**GOOD, "outputs": [{"name": "a", "shape": [True]}]}, "its outputs are written as"),
        ({**GOOD, "outputs": [{"name": "a", "shape": [3, 3]}]}, r"its outputs have 9 numbers, the answer has the shape \(10,\)"),
        ({**GOOD, "settings": {"n": None}}, "its settings are written as"),
        ({**GOOD, "settings": {"n": {"m": 1}}}, "its settings are written as"),
        ({**GOOD, "settings": {"n": [[[[[[[[[[]]]]]]]]]]}}, "its settings are written as"),
    ],
)  # fmt: skip
def test_a_description_that_is_wrong_is_refused(said: object, words: str) -> None:
    assert read_detector(GOOD, (10,)).to_dict() == GOOD
    with pytest.raises(ValueError, match=words):
        read_detector(said, (10,))


def test_another_order_of_tensors_is_refused() -> None:
    detector = read_detector(GOOD, (10,))
    detector.check([("a", (2, 3)), ("b", (4,))], GOOD["settings"], "x")  # type: ignore[arg-type]
    for outputs, words in (
        ([("b", (4,)), ("a", (2, 3))], "the core of x gives b 4, and the packed file holds a 2x3"),
        ([("a", (2, 3))], "the core of x gives nothing, and the packed file holds b 4"),
    ):
        with pytest.raises(UserError, match=words):
            detector.check(outputs, GOOD["settings"], "x")  # type: ignore[arg-type]


def test_torchvisions_settings_are_found() -> None:
    core = registry.build(SSDLITE)
    core.fit_to((3, 96, 96))
    found = core.shell.settings
    assert {name: found[name] for name in ("score_thresh", "nms_thresh", "detections_per_img", "topk_candidates")} == {
        "score_thresh": 0.001, "nms_thresh": 0.55, "detections_per_img": 300, "topk_candidates": 300,
    }  # fmt: skip
    assert found["transform.fixed_size"] == [96, 96]
    assert found["anchor_generator.scales"] == [0.2, 0.35, 0.5, 0.65, 0.8, 0.95, 1.0]
    assert core.shell.outputs == [("head.bbox_regression", (312, 4)), ("head.cls_logits", (312, 11))]

    theirs = get_model(SSDLITE.partition(":")[2], weights=None, weights_backbone=None, num_classes=11, nms_thresh=0.3)
    other = Core(theirs, ("backbone", "head"), "my.py:net", 10)
    other.fit_to((3, 96, 96))
    detector = PackedDetector(tuple(core.shell.outputs), found)
    with pytest.raises(UserError, match=r"nms_thresh is 0\.3 in the code of my\.py:net, and 0\.55 in the packed file"):
        detector.check(other.shell.outputs, other.shell.settings, "my.py:net")


@pytest.mark.usefixtures("made")
def test_the_answer_of_an_onnx_model_can_be_cut_apart(command: Callable) -> None:
    """Run the example of docs/detectors.md: its tensors are those of the packed file."""
    ort = pytest.importorskip("onnxruntime")
    ((module, argv, _),) = lines(marked("detectors-onnx")[0])
    Path(argv[argv.index("--model") + 1]).write_bytes(PACKED.read_bytes())
    done = command(module, *argv)
    assert done.code == 0, done.err
    (block,) = marked("detectors-onnx-cut")
    names: dict[str, object] = {"picture": (x := torch.rand(2, 3, 64, 64, generator=torch.manual_seed(0)).numpy())}
    exec(block.text, names)
    found = names["tensors"]
    assert isinstance(found, dict)
    held = packed.open(PACKED)
    answer = choose("reference", held.program, 1)(torch.from_numpy(x))
    assert [(name, part.shape) for name, part in found.items()] == [("top", (2, 15, 8, 8))]
    whole = np.concatenate([part.reshape(2, -1) for part in found.values()], 1)
    np.testing.assert_allclose(whole, answer.numpy(), rtol=1e-4, atol=1e-4)
    meta = ort.InferenceSession("detector.onnx").get_modelmeta().custom_metadata_map
    assert json.loads(meta["settings"]) == {"nms_thresh": 0.25}
    in_format_2()
    old = command("deploy.onnx", "--model", OLD, "--save", "old.onnx")
    assert old.code == 0
    assert "the packed file does not name the tensors of its answer, so the model does not: pack it again" in old.err
    assert "outputs" not in ort.InferenceSession("old.onnx").get_modelmeta().custom_metadata_map


@pytest.mark.slow
def test_the_tensors_of_ssdlite_are_those_of_its_head(workplace: Path, command: Callable) -> None:
    """Cut from ONNX, they equal what torchvision's own modules return."""
    pytest.importorskip("onnxruntime")
    flags = ("--dataset", "scenes", "--image_size", "96", "--cpu", "--quiet", "--epochs", "1", "--precision", "fp32")
    with pytest.MonkeyPatch.context() as patch:
        whole = scenes.read
        patch.setattr(scenes, "read", lambda size: whole(size, (48, 12)))
        trained = command("prune.train", "--arch", SSDLITE, *flags)
    assert trained.code == 0, trained.err
    done = command("deploy.onnx", "--model", trained.path, "--save", "detector.onnx")
    assert done.code == 0, done.err
    names: dict[str, object] = {"picture": (x := torch.rand(2, 3, 96, 96, generator=torch.manual_seed(0)).numpy())}
    exec(marked("detectors-onnx-cut")[0].text, names)
    found = names["tensors"]
    assert isinstance(found, dict)
    core = registry.build(SSDLITE).eval()
    core.load_state_dict(torch.load(trained.path, weights_only=True)["state_dict"], strict=False)
    with torch.no_grad():
        right = core.get_submodule("head")(list(core.get_submodule("backbone")(torch.from_numpy(x)).values()))
    assert {name.removeprefix("head.") for name in found} == set(right)
    for name, part in right.items():
        scale = math.fabs(float(part.abs().max()))
        np.testing.assert_allclose(found[f"head.{name}"], part.numpy(), rtol=1e-4, atol=1e-4 * scale)
