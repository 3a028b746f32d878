"""Networks that read one channel are quantized, calibrated and merged like any other; their files stay grey."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from engine.checkpoint.format import Checkpoint, load
from tests.conftest import SMALL

ARCH = ("--arch", "tests.tools.gray:small")


@pytest.mark.parametrize(
    ("module", "words"),
    [
        ("quant.wqaq", ("--Wbits", "4", "--Abits", "4")),
        ("quant.wqaq", ("--quantizer", "lsq", "--Wbits", "4", "--Abits", "4")),
        ("quant.wqaq", ("--q_type", "1", "--bn_fold", "1")),
        ("quant.wbwtab", ("--W", "2", "--A", "2")),
        ("quant.wbwtab", ("--W", "3", "--A", "2")),
        ("quant.ptq", ("--calibrate", "mse", "--bias_correction", "--cpu")),
    ],
    ids=["dorefa", "lsq", "int8 folded", "binary", "ternary", "ptq"],
)  # fmt: skip
def test_from_float_to_merged(module: str, words: tuple[str, ...], command) -> None:
    start = command("prune.train", *ARCH, *SMALL).path
    first = ("--model", start) if module == "quant.ptq" else ("--refine", start, *SMALL)
    made = command(module, *first, *words, *ARCH)
    assert made.code == 0, made.err
    merged = command("bn_merge.__main__", "--model", made.path, *ARCH, "--save", "merged.pth", "--cpu")
    assert merged.code == 0, merged.err
    compared = command("bn_merge.compare", made.path, merged.path, *ARCH, "--float64", "--json", "--cpu")
    assert compared.code == 0, compared.err
    found = json.loads(compared.out)
    assert found["agree"] == found["pictures"] == 360
    file = load(Path("merged.pth"))
    assert isinstance(file, Checkpoint)
    assert file.dataset.channels == 1
