"""Histograms show what pruning goes by and what calibration sees: the same scales, the same ranges."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace

import pytest

from engine.data import catalogue
from engine.errors import USAGE
from models import files
from quant.calibrate import METHODS, calibrate
from quant.prepare import prepare
from quant.spec import affine_spec
from scripts.drawing import histograms
from tests.conftest import assert_refused

Command = Callable[..., SimpleNamespace]
SPARSE, LAYER = "models_save/nin_preprune.pth", "block4.conv"


@pytest.fixture
def drawn(refined: Command) -> Command:
    pytest.importorskip("matplotlib")
    return refined


@pytest.mark.parametrize("method", METHODS)
def test_ranges_are_those_of_calibration(method: str, refined: Command) -> None:
    model = files.open(Path(SPARSE)).network
    split = catalogue.load("digits", image_size=8).train
    quantized = prepare(model, affine_spec(8, 8, 1, True))
    found = histograms.ranges(histograms.inputs(quantized, LAYER, split, 100, seed=3), 8)
    calibrate(quantized, split, method, 100, seed=3)
    quantizer = quantized.get_submodule(LAYER).input_quantizer
    assert (quantizer.low.item(), quantizer.high.item()) == pytest.approx(found[method], rel=1e-6)
    assert found[method][1] > 0


def test_scales_of_files(drawn: Command) -> None:
    done = drawn("scripts.histograms", SPARSE, "models_save/nin_refine.pth", "--cpu")
    assert (done.code, done.path) == (0, "runs/histograms.png")
    assert f"{SPARSE}, --s 0.0001: 64 scales, half of them below " in done.out
    assert Path(done.path).read_bytes().startswith(b"\x89PNG")


def test_inputs_of_a_layer(drawn: Command) -> None:
    done = drawn("scripts.histograms", SPARSE, "--layer", LAYER, "--cpu", "--save", "a.png")
    assert (done.code, done.path) == (0, "a.png")
    assert done.out.count("bit minmax: 0 to ") == 2
    refused = drawn("scripts.histograms", SPARSE, "--layer", "block44.conv", "--cpu")
    assert_refused(refused, USAGE, "no convolution or linear layer 'block44.conv'")
    assert "did you mean block4.conv?" in refused.err


@pytest.mark.parametrize(
    ("line", "words"),
    [
        ("", "required: F"),
        ("a.pth b.pth --layer x", "--layer is for one file"),
        ("a.pth --save b.pth", "argument --save: 'b.pth' does not end in .png"),
        ("a.png --save ./a.png", "both input and output"),
        ("a.pth --cfg 8,8", "--cfg"),
        ("a.pth --weights b.pth --arch nin", "--weights contradicts a file"),
    ],
)
def test_flags_that_cannot_be_meant(line: str, words: str, command: Command) -> None:
    assert_refused(command("scripts.histograms", *line.split()), USAGE, words)
